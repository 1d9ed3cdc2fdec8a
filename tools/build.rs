//! Lets the programs find libtorch where torch-sys found it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let Ok(folder) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    if std::path::Path::new(&folder).join("libtorch_cuda.so").exists() {
        // Nothing calls into it by name, so the linker would drop it, and with
        // it the GPU.
        println!("cargo:rustc-link-arg=-Wl,--push-state,--no-as-needed,-ltorch_cuda,--pop-state");
    }
}
