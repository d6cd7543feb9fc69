"""The loop, the average, the rate and the checkpoints."""

import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ddpm_core.training import (
    EMA,
    load_checkpoint,
    make_accelerator,
    save_checkpoint,
    shuffled,
    train,
    warmup_cosine,
)


def squared_error(net, x, y):
    return (net(x) - y).square().mean(1)


def make(seed=0, lr=0.1):
    torch.manual_seed(seed)
    net = nn.Linear(3, 2)
    return net, torch.optim.AdamW(net.parameters(), lr=lr)


def batches(n, generator):
    for _ in range(n):
        yield (
            torch.randn(8, 3, generator=generator),
            torch.randn(8, 2, generator=generator),
        )


def test_a_pass_takes_each_row_once_in_an_order_of_its_own():
    order = list(shuffled(10, passes=2, batch=3, seed=4))
    assert [len(rows) for rows in order] == [3] * 6
    first, second = torch.cat(order[:3]), torch.cat(order[3:])
    for rows in (first, second):
        assert len(set(rows.tolist()) & set(range(10))) == 9
    assert first.tolist() != second.tolist()
    again = torch.cat(list(shuffled(10, passes=2, batch=3, seed=4)))
    assert torch.equal(again, torch.cat([first, second]))


@pytest.mark.parametrize("order", [("no", "bf16"), ("bf16", "no")])
def test_two_precisions_in_one_process_are_each_their_own(generator, order):
    """Both accelerators exist before either trains: neither changes the other."""
    both = [make_accelerator(precision) for precision in order]
    for accelerator, precision in zip(both, order, strict=True):
        assert accelerator.mixed_precision == precision
        inner, optimizer = make()
        seen, net = [], nn.Sequential(inner)  # what leaves the whole is fp32 again
        inner.register_forward_hook(lambda m, i, out, seen=seen: seen.append(out.dtype))
        data = batches(1, generator)
        list(train(net, squared_error, data, optimizer, accelerator=accelerator))
        wanted = torch.bfloat16 if precision == "bf16" else torch.float32
        assert seen == [wanted]
    net, optimizer = make()
    assert len(list(train(net, squared_error, batches(1, generator), optimizer))) == 1
    assert make_accelerator().mixed_precision == "no"


def test_a_step_is_that_of_plain_pytorch(generator):
    net, optimizer = make()
    plain, plain_optimizer = make()
    data = list(batches(5, generator))
    for done, (x, y) in zip(
        train(net, squared_error, data, optimizer, clip=1e9), data, strict=True
    ):
        loss = squared_error(plain, x, y).mean()
        plain_optimizer.zero_grad()
        loss.backward()
        plain_optimizer.step()
        assert done.loss.item() == pytest.approx(loss.item(), rel=1e-6)
        torch.testing.assert_close(net.weight, plain.weight)


def test_accumulation_changes_nothing_but_memory(generator):
    data = list(batches(5, generator))
    (whole, optimizer), (parts, parts_optimizer) = make(), make()
    one = list(train(whole, squared_error, data, optimizer))
    four = list(train(parts, squared_error, data, parts_optimizer, accumulate=4))
    for a, b in zip(one, four, strict=True):
        torch.testing.assert_close(a.loss, b.loss)
        torch.testing.assert_close(a.grad_norm, b.grad_norm)
    torch.testing.assert_close(whole.weight, parts.weight)


def test_a_batch_that_has_no_equal_parts_is_refused(generator):
    net, optimizer = make()
    with pytest.raises(ValueError, match="a batch of 8 has no accumulate = 3"):
        list(train(net, squared_error, batches(1, generator), optimizer, accumulate=3))


def test_each_group_keeps_its_own_rate(generator):
    net, _ = make()
    groups = [{"params": [net.weight], "lr": 0.1}, {"params": [net.bias], "lr": 0.2}]
    optimizer = torch.optim.SGD(groups)
    list(train(net, squared_error, batches(2, generator), optimizer))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]


def test_gradients_are_clipped_and_the_norm_is_reported(generator):
    net, _ = make()
    before = net.weight.detach().clone()
    sgd = torch.optim.SGD(net.parameters(), lr=1.0)
    x, y = torch.randn(8, 3, generator=generator), torch.full((8, 2), 100.0)
    (done,) = train(net, squared_error, [(x, y)], sgd, clip=0.5)
    assert done.grad_norm > 10
    moved = (net.weight - before).norm() ** 2
    assert moved <= 0.5**2 + 1e-6


def test_the_rate_is_the_schedules(generator):
    net, optimizer = make()
    lr = warmup_cosine(1.0, warmup=4, total=20, end=0.1)
    data = batches(20, generator)
    rates = [done.lr for done in train(net, squared_error, data, optimizer, lr=lr)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert max(rates) == 1.0 and rates[12] == pytest.approx(0.55)
    assert lr(20) == pytest.approx(0.1) and lr(10**6) == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(rates[3:-1], rates[4:], strict=True))


def test_ema_is_the_closed_form():
    """Constant decay d from weight 0 towards 1: 1 - d^n after n updates."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    ema = EMA(net, decay=0.9)
    nn.init.ones_(net.weight)
    for n in range(1, 30):
        ema.update(net, step=10**9)
        assert ema.net.weight.item() == pytest.approx(1 - 0.9**n, rel=1e-5)


def test_ema_forgets_its_random_start_and_copies_buffers():
    net = nn.BatchNorm1d(2)
    ema = EMA(net, decay=0.9999)
    with torch.no_grad():
        net.weight += 5
        net.running_mean += 3
    for step in range(30):
        ema.update(net, step)
    torch.testing.assert_close(ema.net.weight, net.weight, rtol=1e-3, atol=0)
    assert torch.equal(ema.net.running_mean, net.running_mean)
    assert not ema.net.training and not ema.net.weight.requires_grad


def trained(generator, steps):
    net, optimizer = make()
    ema = EMA(net)
    for _ in train(net, squared_error, batches(steps, generator), optimizer, ema=ema):
        pass
    return net, ema, optimizer


def test_a_checkpoint_restores_bit_for_bit(tmp_path, generator):
    net, ema, optimizer = trained(generator, 5)
    path = tmp_path / "step.safetensors"
    save_checkpoint(path, 5, net, ema, optimizer)
    other, other_optimizer = make(seed=1)
    other_ema = EMA(other)
    assert load_checkpoint(path, other, other_ema, other_optimizer) == 5
    data = list(batches(5, generator))
    ran = [
        [done.loss for done in train(n, squared_error, data, o, ema=e, start=5)]
        for n, o, e in [(net, optimizer, ema), (other, other_optimizer, other_ema)]
    ]
    assert torch.equal(torch.stack(ran[0]), torch.stack(ran[1]))
    assert torch.equal(net.weight, other.weight)
    assert torch.equal(ema.net.weight, other_ema.net.weight)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, generator):
    """A real limit on the size of files stands for the full disk."""
    net, ema, optimizer = trained(generator, 1)
    good = tmp_path / "step-1.safetensors"
    save_checkpoint(good, 1, net, ema, optimizer)
    before = good.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="could not be written"):
            save_checkpoint(tmp_path / "step-2.safetensors", 2, net, ema, optimizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["step-1.safetensors"]
    assert good.read_bytes() == before


@pytest.mark.parametrize("bit", [0, 7, 8 * 4321 + 3, -1, -8 * 400])
def test_a_flipped_bit_in_a_checkpoint_is_noticed(bit, tmp_path, generator):
    """In the header's length, in the header, in the tensors."""
    net, ema, optimizer = trained(generator, 1)
    path = tmp_path / "step.safetensors"
    save_checkpoint(path, 1, net, ema, optimizer)
    data = bytearray(path.read_bytes())
    place = bit % (8 * len(data))
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)
    with pytest.raises(ValueError, match="step.safetensors cannot be used"):
        load_checkpoint(path, net, ema, optimizer)


@pytest.mark.parametrize("what", ["step", "nan in ema", "moments left out"])
def test_a_checkpoint_that_was_edited_is_noticed(what, tmp_path, generator):
    net, ema, optimizer = trained(generator, 1)
    path = tmp_path / "step.safetensors"
    save_checkpoint(path, 1, net, ema, optimizer)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if what == "step":
        metadata["step"] = "2"
    elif what == "nan in ema":
        next(v for k, v in tensors.items() if k.startswith("ema."))[0] = torch.nan
    else:
        tensors.pop(next(k for k in tensors if k.startswith("optimizer.0")))
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match="has changed since it was written"):
        load_checkpoint(path, net, ema, optimizer)


@pytest.mark.parametrize("spoil", ["cut", "foreign", "other network", "missing"])
def test_an_unreadable_checkpoint_is_named(spoil, tmp_path, generator):
    net, ema, optimizer = trained(generator, 1)
    path = tmp_path / "step.safetensors"
    save_checkpoint(path, 1, net, ema, optimizer)
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif spoil == "foreign":
        path.write_bytes(b"not a checkpoint")
    elif spoil == "other network":
        net = nn.Linear(4, 2)
        ema = EMA(net)
    else:
        path.unlink()
    with pytest.raises(ValueError, match="step.safetensors cannot be used"):
        load_checkpoint(path, net, ema, optimizer)


@pytest.mark.parametrize(
    "key", ["optimizer.9.exp_avg", "optimizer.x.step", "optimizer.0"]
)
def test_a_checkpoint_without_a_hash_is_checked_as_well(key, tmp_path, generator):
    """As the first versions wrote them: a state of no parameter is named, too."""
    net, ema, optimizer = trained(generator, 1)
    path = tmp_path / "step.safetensors"
    save_checkpoint(path, 1, net, ema, optimizer)
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={"step": "1"})
    assert load_checkpoint(path, net, ema, optimizer) == 1
    save_file(
        tensors | {f"optimizer.{key}": torch.ones(1)}, path, metadata={"step": "1"}
    )
    with pytest.raises(ValueError, match="step.safetensors cannot be used"):
        load_checkpoint(path, net, ema, optimizer)
