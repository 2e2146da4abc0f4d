//! Compiles the protocols under `proto/` for the daemon. No protoc is needed, and nothing for the core alone.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "daemon")]
    compile()?;
    Ok(())
}

#[cfg(feature = "daemon")]
fn compile() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(["aquifer/v1/aquifer.proto", "envoy/service/ratelimit/v3/rls.proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // What reflection shows.
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .btree_map(".")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
