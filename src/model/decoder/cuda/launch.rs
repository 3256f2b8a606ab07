//! Tensors, kernels and matrix products on one GPU.
//!
//! Everything runs on the device's one stream, in the order in which it was asked for, so that a tensor may be dropped as soon
//! as what reads it has been launched.

use std::ffi::c_void;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cublas::{result::gemm_ex, sys};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Result, Shape, Storage, Tensor, WithDType,
};
use half::bf16;

/// The name that the driver's module of our kernels goes by.
const MODULE: &str = "intendex-decoder";

#[derive(Debug, Clone)]
pub struct Gpu(CudaDevice);

impl Gpu {
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self(device.as_cuda_device()?.clone()))
    }

    /// A tensor whose values are whatever the memory holds.
    pub fn empty<T: WithDType + CudaDType + DeviceRepr>(&self, shape: &[usize]) -> Result<Tensor> {
        // SAFETY: every caller hands the tensor to a kernel that writes all of it.
        let values = unsafe { self.0.alloc::<T>(shape.iter().product())? };
        Ok(self.tensor(values, shape))
    }

    /// A tensor of one dimension.
    pub fn upload<T: WithDType + CudaDType + DeviceRepr>(
        &self,
        values: impl Iterator<Item = T>,
    ) -> Result<Tensor> {
        let values: Vec<T> = values.collect();
        let on_device = self.0.clone_htod(&values)?;
        Ok(self.tensor(on_device, &[values.len()]))
    }

    fn tensor<T: CudaDType>(&self, values: CudaSlice<T>, shape: &[usize]) -> Tensor {
        let storage = CudaStorage::wrap_cuda_slice(values, self.0.clone());
        let shape = Shape::from(shape);
        Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
    }

    pub fn kernel(&self, name: &str) -> Result<Launch> {
        let function = self
            .0
            .get_or_load_custom_func(name, MODULE, intendex_kernels::CUDA)?;
        Ok(Launch {
            stream: self.0.cuda_stream(),
            function: function.into_cuda_function(),
            arguments: Vec::new(),
        })
    }

    /// y = x Wᵀ, or y += x Wᵀ, of x `[n, input]` and W `[out, input]` in bf16 and y `[n, out]` in bf16 or f32, all contiguous.
    pub fn multiply(&self, x: &Tensor, weight: &Tensor, y: &Tensor, add: bool) -> Result<()> {
        let (n, input) = x.dims2()?;
        let out = weight.dim(0)?;
        if weight.dim(1)? != input || y.dims() != [n, out] {
            candle_core::bail!(
                "shapes: {:?} by {:?} to {:?}",
                x.dims(),
                weight.dims(),
                y.dims()
            );
        }
        let kind = |tensor: &Tensor| match tensor.dtype() {
            DType::BF16 => Ok(sys::cudaDataType_t::CUDA_R_16BF),
            DType::F32 => Ok(sys::cudaDataType_t::CUDA_R_32F),
            other => candle_core::bail!("{other:?} is not multiplied here"),
        };
        let (one, before) = (1f32, if add { 1f32 } else { 0.0 });
        let blas = self.0.cublas_handle();
        // cuBLAS counts columns first: to it the matrices are transposed.
        // SAFETY: the addresses are of tensors of the shapes and types that are given.
        let done = unsafe {
            gemm_ex(
                *blas.handle(),
                sys::cublasOperation_t::CUBLAS_OP_T,
                sys::cublasOperation_t::CUBLAS_OP_N,
                out as i32,
                n as i32,
                input as i32,
                (&raw const one).cast(),
                address(weight)? as *const c_void,
                kind(weight)?,
                input as i32,
                address(x)? as *const c_void,
                kind(x)?,
                input as i32,
                (&raw const before).cast(),
                address(y)? as *mut c_void,
                kind(y)?,
                out as i32,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
            )
        };
        done.w()
    }
}

/// A kernel and the arguments it has been given, in order.
pub struct Launch {
    stream: Arc<CudaStream>,
    function: CudaFunction,
    arguments: Vec<Argument>,
}

enum Argument {
    Address(u64),
    Int(i32),
    Long(i64),
    Float(f32),
}

impl From<i32> for Argument {
    fn from(value: i32) -> Self {
        Self::Int(value)
    }
}

impl From<i64> for Argument {
    fn from(value: i64) -> Self {
        Self::Long(value)
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

impl From<f64> for Argument {
    fn from(value: f64) -> Self {
        Self::Float(value as f32)
    }
}

impl Launch {
    pub fn tensor(&mut self, x: &Tensor) -> Result<&mut Self> {
        self.arguments.push(Argument::Address(address(x)?));
        Ok(self)
    }

    /// A null pointer if there is none.
    pub fn optional(&mut self, x: Option<&Tensor>) -> Result<&mut Self> {
        let address = x.map_or(Ok(0), address)?;
        self.arguments.push(Argument::Address(address));
        Ok(self)
    }

    #[allow(private_bounds)]
    pub fn number(&mut self, value: impl Into<Argument>) -> &mut Self {
        self.arguments.push(value.into());
        self
    }

    /// Starts the kernel on a grid of blocks.
    pub fn run(self, [x, y]: [usize; 2], threads: u32) -> Result<()> {
        if x == 0 {
            return Ok(());
        }
        let mut builder = self.stream.launch_builder(&self.function);
        for argument in &self.arguments {
            match argument {
                Argument::Address(value) => builder.arg(value),
                Argument::Int(value) => builder.arg(value),
                Argument::Long(value) => builder.arg(value),
                Argument::Float(value) => builder.arg(value),
            };
        }
        let config = LaunchConfig {
            grid_dim: (x as u32, y as u32, 1),
            block_dim: (threads, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the callers in `cuda.rs` give what the kernels of `decoder.cu` take.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }
}

/// Where a contiguous tensor's values begin on its GPU.
pub fn address(x: &Tensor) -> Result<u64> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        candle_core::bail!("the tensor is not on a GPU");
    };
    if !layout.is_contiguous() {
        candle_core::bail!("the tensor is not contiguous");
    }
    let stream = storage.device().cuda_stream();
    let start = match x.dtype() {
        DType::BF16 => storage.as_cuda_slice::<bf16>()?.device_ptr(&stream).0,
        DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0,
        DType::F64 => storage.as_cuda_slice::<f64>()?.device_ptr(&stream).0,
        DType::I64 => storage.as_cuda_slice::<i64>()?.device_ptr(&stream).0,
        DType::U32 => storage.as_cuda_slice::<u32>()?.device_ptr(&stream).0,
        other => candle_core::bail!("{other:?} is not passed to kernels"),
    };
    Ok(start + (layout.start_offset() * x.dtype().size_in_bytes()) as u64)
}
