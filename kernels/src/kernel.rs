//! The kernels, and which of them this processor can run.

use std::sync::OnceLock;
use thiserror::Error;

/// Environment variable that forces a kernel, for tests and comparisons.
pub const KERNEL_VARIABLE: &str = "FACELATCH_KERNEL";

/// An instruction set that layers are computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Plain Rust, on every machine; the reference for all others.
    Scalar,
    /// x86-64 with AVX2: products of 16-bit pairs.
    Avx2,
    /// x86-64 with AVX-512 VNNI: dot products of bytes.
    Avx512Vnni,
    /// Any aarch64, such as Cortex-A53, A57 and A72: widening products of bytes.
    Neon,
    /// aarch64 with dot products of bytes: Cortex-A76 and later.
    NeonDot,
}

/// Why a kernel cannot be forced with [`KERNEL_VARIABLE`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KernelError {
    /// There is no kernel of that name.
    #[error("{KERNEL_VARIABLE}: there is no kernel {name}; use one of {known} or unset it")]
    Unknown {
        /// The given name.
        name: String,
        /// Names of all kernels, with commas.
        known: String,
    },
    /// The processor lacks its instructions.
    #[error(
        "{KERNEL_VARIABLE}: this processor cannot run the kernel {name}; use {best} or unset it"
    )]
    Missing {
        /// The given name.
        name: String,
        /// Name of the fastest kernel that this processor can run.
        best: &'static str,
    },
}

impl Kernel {
    /// All kernels, whether this machine can run them or not.
    pub const ALL: [Self; 5] =
        [Self::Scalar, Self::Avx2, Self::Avx512Vnni, Self::Neon, Self::NeonDot];

    /// Name in [`KERNEL_VARIABLE`] and in the output of `facelatch bench`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Neon => "neon",
            Self::NeonDot => "neon-dot",
        }
    }

    /// Whether this processor has the instructions of the kernel.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512vl")
                    && std::is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => {
                std::arch::is_aarch64_feature_detected!("neon")
                    && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[allow(unreachable_patterns, reason = "which are left depends on the machine")]
            _ => false,
        }
    }

    /// The fastest kernel that this processor can run.
    pub fn best() -> Self {
        static BEST: OnceLock<Kernel> = OnceLock::new();
        *BEST.get_or_init(|| {
            let by_speed = [Self::Avx512Vnni, Self::Avx2, Self::NeonDot, Self::Neon];
            by_speed.into_iter().find(|kernel| kernel.is_available()).unwrap_or(Self::Scalar)
        })
    }

    /// The kernel named by [`KERNEL_VARIABLE`], or the fastest. Fails if the variable names
    /// an unknown kernel or one that this processor cannot run.
    pub fn chosen() -> Result<Self, KernelError> {
        std::env::var(KERNEL_VARIABLE).map_or(Ok(Self::best()), |name| Self::named(&name))
    }

    pub(crate) fn named(name: &str) -> Result<Self, KernelError> {
        let Some(kernel) = Self::ALL.into_iter().find(|kernel| kernel.name() == name) else {
            let known = Self::ALL.map(Self::name).join(", ");
            return Err(KernelError::Unknown { name: name.to_owned(), known });
        };
        if kernel.is_available() {
            Ok(kernel)
        } else {
            Err(KernelError::Missing { name: name.to_owned(), best: Self::best().name() })
        }
    }

    /// Offset of a byte in memory from the activation that it represents, 0 or 128.
    pub fn offset(self) -> i32 {
        match self {
            Self::Avx2 | Self::Avx512Vnni => 128,
            Self::Scalar | Self::Neon | Self::NeonDot => 0,
        }
    }

    /// The byte in memory for an activation.
    pub fn stored(self, q: i8) -> u8 {
        (i32::from(q) + self.offset()) as u8
    }
}
