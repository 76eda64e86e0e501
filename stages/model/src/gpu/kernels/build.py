"""Compiles the kernels for GPUs, without one: `python3 build.py FOLDER` writes into FOLDER (`built` for the repository).

Needs NVRTC 12.4 and nothing else of CUDA: `pip install nvidia-cuda-nvrtc-cu12==12.4.127`. The library is looked for
in the environment of the Python that runs this, or in the folder that NVRTC_LIB names. Without it: exit code 3.
"""

import ctypes
import glob
import os
import sys
import sysconfig

SOURCES = [
    "words.h",
    "heads.h",
    "after.h",
    "elements.cu",
    "rows.cu",
    "products.cu",
    "tensor.cu",
    "attention.cu",
    "tensor_attention.cu",
    "cached.cu",
    "optimizer.cu",
]
VERSION = (12, 4)
# GPUs of one generation run what was compiled for its first; newer ones are compiled for by their driver.
TARGETS = [("sm_80", "CUBIN"), ("sm_90a", "CUBIN"), ("compute_80", "PTX")]


def missing(why):
    print(why)
    sys.exit(3)


def library():
    folder = os.environ.get("NVRTC_LIB") or os.path.join(sysconfig.get_paths()["purelib"], "nvidia/cuda_nvrtc/lib")
    builtins, nvrtc = (glob.glob(os.path.join(folder, name)) for name in ("libnvrtc-builtins.so*", "libnvrtc.so*"))
    if not builtins or not nvrtc:
        missing(f"no NVRTC in {folder}")
    ctypes.CDLL(builtins[0], mode=ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(nvrtc[0])
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    if (major.value, minor.value) != VERSION:
        missing(f"NVRTC {major.value}.{minor.value}, and the kernels are compiled by 12.4")
    return nvrtc


def source():
    here = os.path.dirname(os.path.abspath(__file__))
    lines = (line for name in SOURCES for line in open(os.path.join(here, name), "rb"))
    return b"".join(line for line in lines if not line.startswith((b'#include "', b"#pragma once")))


def text(nvrtc, program, what):
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    found = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, found)
    return found.raw[: size.value]


def compiled(nvrtc, target, what):
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source(), b"kernels.cu", 0, None, None)
    options = [f"--gpu-architecture={target}".encode(), b"--std=c++17"]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    if failed:
        sys.exit(text(nvrtc, program, "ProgramLog").decode())
    return text(nvrtc, program, what)


def main():
    nvrtc = library()
    for target, what in TARGETS:
        with open(os.path.join(sys.argv[1], f"{target}.{what.lower()}"), "wb") as out:
            out.write(compiled(nvrtc, target, what))


main()
