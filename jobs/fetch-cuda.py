#!/usr/bin/env python3
"""Makes a CUDA 13 toolkit to build with, of NVIDIA's packages on PyPI. It needs neither a GPU nor a driver.

    python3 jobs/fetch-cuda.py FOLDER

FOLDER/toolkit is then what CUDA_HOME names. What is there already is left alone.
"""
import pathlib
import re
import subprocess
import sys
import venv

PARTS = ["crt", "runtime", "cccl", "nvrtc", "nvcc"]
PACKAGES = [f"nvidia-cuda-{part}==13.0.*" for part in PARTS] + [
    "nvidia-nvvm==13.0.*",
    "nvidia-cublas==13.0.*",
    "nvidia-curand==10.4.*",
]


def main():
    folder = pathlib.Path(sys.argv[1]).absolute()
    toolkit = folder / "toolkit"
    if (toolkit / "complete-2").exists():
        return
    environment = folder / "venv"
    venv.create(environment, with_pip=True, clear=True)
    pip = [environment / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    if subprocess.run([*pip, *PACKAGES], stdin=subprocess.DEVNULL).returncode:
        sys.exit("fetch-cuda.py: pip failed; is PyPI reachable? Or install CUDA 13 and set CUDA_HOME.")
    (found,) = environment.glob("lib/python*/site-packages/nvidia/cu13")
    libraries = toolkit / "lib64"
    stubs = libraries / "stubs"
    stubs.mkdir(parents=True, exist_ok=True)
    for name in ("bin", "include", "nvvm"):
        link(toolkit / name, found / name)
    for library in (found / "lib").iterdir():
        link(libraries / library.name, library)
        if ".so." in library.name:
            link(libraries / (library.name.split(".so.")[0] + ".so"), library)
    stub(stubs, (toolkit / "include/cuda.h").read_text())
    (toolkit / "complete-2").touch()


def stub(folder: pathlib.Path, header: str) -> None:
    """A driver's library to link with. Where there is no driver, it lets a program start and find no GPU."""
    names = sorted(set(re.findall(r"\bcu[A-Z]\w+", header)))
    not_found = 100  # CUDA_ERROR_NO_DEVICE
    source = "".join(f"int {name}(void) {{ return {not_found}; }}\n" for name in names)
    command = ["cc", "-shared", "-w", "-fPIC", "-Wl,-soname,libcuda.so.1", "-x", "c", "-", "-o", folder / "libcuda.so.1"]
    subprocess.run(command, input=source.encode(), check=True)
    link(folder / "libcuda.so", pathlib.Path("libcuda.so.1"))


def link(path: pathlib.Path, target: pathlib.Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


main()
