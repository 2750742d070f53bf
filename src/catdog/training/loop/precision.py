"""Which number format a network computes in: bfloat16 where the hardware has it, float32 elsewhere."""

from catdog.engines import backend, processor

_FIRST_CAPABLE_GPU = (8, 0)  # compute capability


def resolve(precision: str) -> str:
    """`float32` or `mixed_bfloat16` as they are; `auto` becomes the one that is faster on this machine."""
    if precision != "auto":
        return precision
    return "mixed_bfloat16" if bfloat16_pays() else "float32"


def for_training(precision: str) -> str:
    """The same for a network that Keras trains: by JAX on a processor, bfloat16 is no faster than float32."""
    if precision == "auto" and backend.is_jax() and not gpu_capabilities():
        return "float32"
    return resolve(precision)


def bfloat16_pays() -> bool:
    """Whether every GPU, or where there is none the processor, computes in bfloat16 itself."""
    capabilities = gpu_capabilities()
    return min(capabilities) >= _FIRST_CAPABLE_GPU if capabilities else processor.has_bfloat16()


def gpu_capabilities() -> list[tuple[int, int]]:
    """The compute capability of each GPU that Keras can use."""
    # Either is slow to import, so only where the answer is wanted.
    if backend.is_jax():
        import jax

        gpus = [device for device in jax.local_devices() if device.platform == "gpu"]
        return [_numbers(getattr(gpu, "compute_capability", "")) for gpu in gpus]
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    # A GPU that does not name its capability is not one of NVIDIA's.
    return [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]


def _numbers(capability: str) -> tuple[int, int]:
    """Of a text such as 8.0; that of a GPU which is not one of NVIDIA's is another."""
    major, _, minor = capability.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)
