//! Whether this processor has what the program was compiled for.

/// The flags that FAISS was compiled with, if any were given. Rust code chooses its instructions at run time.
const FLAGS: Option<&str> = option_env!("CXXFLAGS_x86_64_unknown_linux_gnu");

/// An error where the first FAISS call would end the process without a word.
pub fn check() -> anyhow::Result<()> {
    anyhow::ensure!(
        !FLAGS.is_some_and(|flags| flags.contains("x86-64-v3")) || has_avx2(),
        "this program was built for processors with AVX2 (x86-64-v3), and this one has none; build it for any with \
         `cargo clean --release -p faiss-sys` and `cargo build --release`"
    );
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("fma") && has!("f16c") && has!("bmi2") && has!("lzcnt")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    true
}
