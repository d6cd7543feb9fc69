"""A whole diffusion model: it draws cars, learns from them, makes new ones."""

import copy
import struct
import zlib

import torch
import torch.nn.functional as F
from torch import nn

T = 400  # timesteps; numbers in parentheses are equations of Ho et al. 2020
BETA = torch.linspace(0.1 / T, 20 / T, T, dtype=torch.float64)
ALPHA_BAR = F.pad((1 - BETA).cumprod(0), (1, 0), value=1.0)  # t = 0..T


def draw_cars(n):
    """Draw n cars, (n, 3, 16, 32) in [-1, 1], of many colours and shapes."""
    y, x = torch.arange(16.0)[:, None], torch.arange(32.0)
    sky, ground, body = torch.rand(3, n, 3, 1, 1)
    half, back, tall, at = torch.rand(4, n, 1, 1, 1)
    half, back, tall, at = 10 + 3 * half, 3 * back, 3 + 2 * tall, 15 + at
    image = (1 - sky / 2).lerp(ground / 2, (y > 12).float())
    for dx, dy, w, h, power, colour in (
        (x - at, y - 9.5, half, 3, 8, body),
        (x - at + back, y - 7, half - 4, tall, 4, body),
        (x - at + back, y - 6, half - 6, tall - 2.5, 4, 0 * body + 0.9),
        ((x - at).abs() - half / 2, y - 12, 3, 3, 2, 0 * body),  # both wheels
    ):
        size = ((dx / w) ** power + (dy / h) ** power) ** (1 / power)
        image = image.lerp(colour, ((1 - size) * h + 0.5).clamp(0, 1))
    return 2 * image - 1


class Block(nn.Module):  # two convolutions around a skip; t shifts the middle
    def __init__(self, i, o, e):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, i), nn.GroupNorm(8, o)
        self.conv1 = nn.Conv2d(i, o, 3, padding=1)
        self.conv2 = nn.Conv2d(o, o, 3, padding=1)
        self.shift, self.skip = nn.Linear(e, o), nn.Conv2d(i, o, 1)

    def forward(self, x, e):
        h = self.conv1(F.silu(self.norm1(x))) + self.shift(e)[..., None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class UNet(nn.Module):  # predicts the noise in images x at timesteps t
    def __init__(self, c=48):
        super().__init__()
        self.time, self.stem = nn.Linear(c, c), nn.Conv2d(12, c, 3, padding=1)
        widths = (c, c), (c, 2 * c), (2 * c, 2 * c), (4 * c, c), (2 * c, c)
        self.blocks = nn.ModuleList(Block(i, o, c) for i, o in widths)
        self.head = nn.Conv2d(c, 12, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def forward(self, x, t):
        down, down2, middle, up2, up = self.blocks
        angle = t[:, None] / 10_000 ** torch.linspace(0, 1, 24)
        e = F.silu(self.time(torch.cat([angle.sin(), angle.cos()], 1)))
        fine = down(self.stem(F.pixel_unshuffle(x, 2)), e)
        coarse = down2(F.avg_pool2d(fine, 2), e)
        h = up2(torch.cat([middle(coarse, e), coarse], 1), e)
        h = up(torch.cat([F.interpolate(h, scale_factor=2.0), fine], 1), e)
        return F.pixel_shuffle(self.head(F.silu(h)), 2)


def diffusion_loss(net, x0):
    """Return the mean squared error of the predicted noise, (14)."""
    t, eps = torch.randint(1, T + 1, (len(x0),)), torch.randn_like(x0)
    ab = ALPHA_BAR[t].float()[:, None, None, None]
    x_t = ab.sqrt() * x0 + (1 - ab).sqrt() * eps  # (4)
    return (net(x_t, t) - eps).square().mean()


def train(net, steps):
    """Algorithm 1 on freshly drawn cars. Return the averaged network."""
    average, adam = copy.deepcopy(net), torch.optim.Adam(net.parameters())
    for step in range(steps):
        adam.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        loss = diffusion_loss(net, draw_cars(32))
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        for a, w in zip(average.parameters(), net.parameters(), strict=True):
            a.data.lerp_(w.data, max(0.005, 9 / (10 + step)))
        print(f"step {step + 1} of {steps}, loss {loss:.3f} ", end="\r")
    return average


@torch.no_grad()
def sample(net, x):
    """Algorithm 2: from noise x at t = T to images."""
    for t in range(T, 0, -1):
        ab, ab_u, beta = *ALPHA_BAR[[t, t - 1]].tolist(), BETA[t - 1].item()
        eps = net(x, torch.full((len(x),), t))
        x = (x - beta / (1 - ab) ** 0.5 * eps) / (1 - beta) ** 0.5  # (11)
        std = ((1 - ab_u) / (1 - ab) * beta) ** 0.5  # (7); 0 at t = 1
        x = x + std * torch.randn_like(x)
    return x


def png(images):
    """Encode images (n, 3, h, w) in [-1, 1], four to a row."""
    rows = images.unflatten(0, (-1, 4)).permute(0, 3, 1, 4, 2).flatten(0, 1)
    rows = (127.5 * (rows.flatten(1).clamp(-1, 1) + 1)).byte()
    data = zlib.compress(bytes(F.pad(rows, (1, 0)).flatten().tolist()))
    head = struct.pack(">2I5B", rows.shape[1] // 3, len(rows), 8, 2, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    for p in (b"IHDR" + head, b"IDAT" + data, b"IEND"):
        file += struct.pack(f">I{len(p)}sI", len(p) - 4, p, zlib.crc32(p))
    return file


if __name__ == "__main__":
    torch.manual_seed(0)
    cars = sample(train(UNet(), 1000), torch.randn(16, 3, 16, 32))
    with open("cars.png", "wb") as file:
        file.write(png(F.interpolate(cars, scale_factor=6.0)))
