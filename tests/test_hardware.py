import torch

from emissary.hardware import default_dtype, device


def test_the_default_dtype_computes_on_the_device() -> None:
    here = device()
    dtype = default_dtype(here)
    assert dtype in (torch.bfloat16, torch.float32)
    product = torch.ones(4, 4, device=here, dtype=dtype) @ torch.ones(4, 4, device=here, dtype=dtype)
    assert product.sum().item() == 64
