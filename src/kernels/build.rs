//! Compiles the CUDA kernels to PTX, which the driver compiles for its card, if the feature `cuda` asks for them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = "cuda/decoder.cu";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    println!("cargo::rerun-if-env-changed=CUDA_COMPUTE_CAP");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let home = env::var_os("CUDA_HOME").map(PathBuf::from);
    let nvcc = home.map_or("nvcc".into(), |home| home.join("bin/nvcc"));
    let capability = env::var("CUDA_COMPUTE_CAP").unwrap_or("80".into());
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("decoder.ptx");
    let compiled = Command::new(&nvcc)
        .args(["-ptx", "-O3", "-std=c++17", SOURCE, "-o"])
        .arg(&out)
        .arg(format!("-arch=compute_{capability}"))
        .status();
    let done = compiled.as_ref().is_ok_and(|status| status.success());
    assert!(
        done,
        "{} cannot compile {SOURCE} ({compiled:?}); set CUDA_HOME",
        nvcc.display()
    );
}
