//! Compiles the kernels of evo-sdpa to PTX and checks the result.
