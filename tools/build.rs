//! Adds libtorch's folder to the run path of the programs, and links its CUDA library if
//! there is one.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let Ok(folder) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    if std::path::Path::new(&folder).join("libtorch_cuda.so").exists() {
        // No symbol refers to the CUDA library, so the linker would drop it and the GPU
        // would be unavailable.
        println!("cargo:rustc-link-arg=-Wl,--push-state,--no-as-needed,-ltorch_cuda,--pop-state");
    }
}
