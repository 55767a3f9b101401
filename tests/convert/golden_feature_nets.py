"""Writes ``golden/feature_nets.npz``: Inception for FID and VGG in PyTorch. Run by hand, without arguments.

Needs torch and Pillow, and no torchvision: the networks are written here from the published layer tables, with the
names of the published weights. Their widths are divided by 16; weights and images are drawn by ``random_weights.py`` on
both sides, so the file holds outputs, and the names and shapes of all arrays at full width.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from random_weights import random_images, random_weights
from torch import nn

SHRINK = 16


class BasicConv(nn.Module):
    def __init__(self, channels, width, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class A(nn.Module):
    def __init__(self, channels, pooled, s):
        super().__init__()
        self.branch1x1 = BasicConv(channels, 64 // s, 1)
        self.branch5x5_1 = BasicConv(channels, 48 // s, 1)
        self.branch5x5_2 = BasicConv(48 // s, 64 // s, 5, padding=2)
        self.branch3x3dbl_1 = BasicConv(channels, 64 // s, 1)
        self.branch3x3dbl_2 = BasicConv(64 // s, 96 // s, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv(96 // s, 96 // s, 3, padding=1)
        self.branch_pool = BasicConv(channels, pooled // s, 1)

    def forward(self, x):
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pooled = self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
        return torch.cat([self.branch1x1(x), five, three, pooled], 1)


class B(nn.Module):
    def __init__(self, channels, s):
        super().__init__()
        self.branch3x3 = BasicConv(channels, 384 // s, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv(channels, 64 // s, 1)
        self.branch3x3dbl_2 = BasicConv(64 // s, 96 // s, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv(96 // s, 96 // s, 3, stride=2)

    def forward(self, x):
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, F.max_pool2d(x, 3, 2)], 1)


class C(nn.Module):
    def __init__(self, channels, c, s):
        super().__init__()
        c, out = c // s, 192 // s
        self.branch1x1 = BasicConv(channels, out, 1)
        self.branch7x7_1 = BasicConv(channels, c, 1)
        self.branch7x7_2 = BasicConv(c, c, (1, 7), padding=(0, 3))
        self.branch7x7_3 = BasicConv(c, out, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = BasicConv(channels, c, 1)
        self.branch7x7dbl_2 = BasicConv(c, c, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = BasicConv(c, c, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = BasicConv(c, c, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = BasicConv(c, out, (1, 7), padding=(0, 3))
        self.branch_pool = BasicConv(channels, out, 1)

    def forward(self, x):
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        pooled = self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
        return torch.cat([self.branch1x1(x), seven, double, pooled], 1)


class D(nn.Module):
    def __init__(self, channels, s):
        super().__init__()
        c = 192 // s
        self.branch3x3_1 = BasicConv(channels, c, 1)
        self.branch3x3_2 = BasicConv(c, 320 // s, 3, stride=2)
        self.branch7x7x3_1 = BasicConv(channels, c, 1)
        self.branch7x7x3_2 = BasicConv(c, c, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = BasicConv(c, c, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = BasicConv(c, c, 3, stride=2)

    def forward(self, x):
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], 1)


class E(nn.Module):
    def __init__(self, channels, maximum, s):
        super().__init__()
        self.maximum, c = maximum, 384 // s
        self.branch1x1 = BasicConv(channels, 320 // s, 1)
        self.branch3x3_1 = BasicConv(channels, c, 1)
        self.branch3x3_2a = BasicConv(c, c, (1, 3), padding=(0, 1))
        self.branch3x3_2b = BasicConv(c, c, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = BasicConv(channels, 448 // s, 1)
        self.branch3x3dbl_2 = BasicConv(448 // s, c, 3, padding=1)
        self.branch3x3dbl_3a = BasicConv(c, c, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = BasicConv(c, c, (3, 1), padding=(1, 0))
        self.branch_pool = BasicConv(channels, 192 // s, 1)

    def forward(self, x):
        three, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, 1, 1) if self.maximum else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        three = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        double = [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *three, *double, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    def __init__(self, classes=1008, s=1):
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv(3, 32 // s, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv(32 // s, 32 // s, 3)
        self.Conv2d_2b_3x3 = BasicConv(32 // s, 64 // s, 3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv(64 // s, 80 // s, 1)
        self.Conv2d_4a_3x3 = BasicConv(80 // s, 192 // s, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = A(192 // s, 32, s), A(256 // s, 64, s), A(288 // s, 64, s)
        self.Mixed_6a = B(288 // s, s)
        self.Mixed_6b, self.Mixed_6c = C(768 // s, 128, s), C(768 // s, 160, s)
        self.Mixed_6d, self.Mixed_6e = C(768 // s, 160, s), C(768 // s, 192, s)
        self.Mixed_7a = D(768 // s, s)
        self.Mixed_7b, self.Mixed_7c = E(1280 // s, False, s), E(2048 // s, True, s)
        self.fc = nn.Linear(2048 // s, classes)

    def forward(self, x):
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name, block in self.named_children():
            x = block(x) if name.startswith("Mixed") else x
        features = F.adaptive_avg_pool2d(x, (1, 1)).flatten(1)
        return features, self.fc(features)


class VGG(nn.Module):
    GROUPS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # noqa: RUF012

    def __init__(self, depth, s=1):
        super().__init__()
        layers, channels = [], 3
        for number, width in zip(self.GROUPS[depth], (64, 128, 256, 512, 512), strict=True):
            for _ in range(number):
                layers += [nn.Conv2d(channels, width // s, 3, padding=1), nn.ReLU()]
                channels = width // s
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)

    def forward(self, x):
        outputs = []
        for layer in self.features:
            x = layer(x)
            outputs.append(x)
        return outputs


def shapes(module):
    return {n: tuple(t.shape) for n, t in module.state_dict().items() if not n.endswith("num_batches_tracked")}


def filled(module):
    weights = random_weights(shapes(module))
    module.load_state_dict({name: torch.tensor(w) for name, w in weights.items()}, strict=False)
    return module.eval()


def nchw(images):
    return torch.tensor(images).permute(0, 3, 1, 2)


def arrays():
    with torch.no_grad():
        net = filled(Inception(10, SHRINK))
        features, logits = net(nchw(random_images(2, 107, 91, 3)))
        yield "inception:features", features
        yield "inception:logits", logits
        x = F.interpolate(nchw(random_images(1, 20, 20, 3)), size=(299, 299), mode="bilinear", align_corners=False)
        features, logits = net(x)
        yield "fid:features", features
        yield "fid:probabilities", torch.softmax(logits - net.fc.bias, dim=1)
        x = (nchw(random_images(2, 32, 48, 3)) + 1) / 2
        x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
            :, None, None
        ]
        for depth, places in {16: (0, 1, 4, 18, 30), 19: (3, 20, 36)}.items():
            outputs = filled(VGG(depth, SHRINK))(x)
            for k in places:
                yield f"vgg{depth}:{k}", outputs[k].permute(0, 2, 3, 1)
        for size in (20, 320):  # every thirteenth row and column of the result
            levels = np.rint((random_images(1, size, size, 3) + 1) * 127.5).astype(np.float32)
            resized = F.interpolate(nchw(levels / 255), size=(299, 299), mode="bilinear", align_corners=False)
            yield f"resize:pytorch-fid:{size}", (2 * resized - 1).permute(0, 2, 3, 1)[:, ::13, ::13]
            planes = [Image.fromarray(levels[0, ..., c]).resize((299, 299), Image.Resampling.BICUBIC) for c in range(3)]
            clean = (np.stack([np.asarray(p) for p in planes], -1).clip(0, 255) - 128) / 128
            yield f"resize:clean-fid:{size}", clean[None, ::13, ::13]
    with torch.device("meta"):
        full = {"inception": Inception(), "vgg16": VGG(16), "vgg19": VGG(19)}
    yield "shapes", json.dumps({name: shapes(module) for name, module in full.items()})


if __name__ == "__main__":
    path = Path(__file__).parent / "golden" / "feature_nets.npz"
    versions = json.dumps({name: version(name) for name in ("torch", "pillow", "numpy")})
    np.savez_compressed(path, versions=versions, **{name: np.asarray(array) for name, array in arrays()})
    print(path.name, path.stat().st_size, versions)
