//! The arithmetic of the models: on the CPU, and in `cuda/` on NVIDIA GPUs. A package of its own so that it is optimised in
//! test builds, too, where the rest compiles fast.

/// A function compiled for each instruction set and run on the best there is. Its body is the body of an inlined method,
/// as a closure's would be compiled apart, for the least instruction set. The lifetime is for its arguments.
macro_rules! vectorized {
    (
        $(#[$about:meta])*
        $seen:vis fn $name:ident<$life:lifetime>($($argument:ident: $kind:ty),* $(,)?) -> $output:ty $body:block
    ) => {
        $(#[$about])*
        $seen fn $name<$life>($($argument: $kind),*) -> $output {
            struct Work<$life> {
                $($argument: $kind,)*
                life: std::marker::PhantomData<&$life ()>,
            }

            impl<$life> pulp::WithSimd for Work<$life> {
                type Output = $output;

                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _: S) -> $output {
                    let Self { $($argument,)* life: _ } = self;
                    $body
                }
            }

            let life = std::marker::PhantomData;
            pulp::Arch::new().dispatch(Work { $($argument,)* life })
        }
    };
}

/// The kernels in `cuda/`, as PTX.
#[cfg(feature = "cuda")]
pub const CUDA: &str = include_str!(concat!(env!("OUT_DIR"), "/decoder.ptx"));

pub mod matrix;
pub mod quant;
pub mod vector;
