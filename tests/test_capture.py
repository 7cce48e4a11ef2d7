import pytest
import torch

from scoremd.capture import captured

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_a_recorded_function_gives_the_numbers_of_the_function_on_new_arguments():
    def function(a, pair):
        x = a.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((x**3 * pair["b"]).sum(), x)
        return {"gradient": gradient, "sum": (x + pair["b"]).sum().detach()}

    def arguments(seed):
        g = torch.Generator("cuda").manual_seed(seed)
        return torch.randn(5, 3, device="cuda", generator=g), {"b": torch.randn(3, device="cuda", generator=g)}

    call = captured(function, *arguments(0))
    for seed in (1, 2):
        expected, result = function(*arguments(seed)), call(*arguments(seed))
        torch.testing.assert_close(result["gradient"], expected["gradient"])
        torch.testing.assert_close(result["sum"], expected["sum"])


def test_other_shapes_are_refused():
    call = captured(lambda a: 2 * a, torch.zeros(4, device="cuda"))
    with pytest.raises(ValueError, match=r"recorded for \(4,\) of torch.float32, not for \(5,\)"):
        call(torch.zeros(5, device="cuda"))
