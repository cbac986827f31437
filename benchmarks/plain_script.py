"""Fine-tunes a network of timm on a folder, in 36 lines below its imports: `plain_script.py FOLDER WEIGHTS SEED`."""

import copy
import sys

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

folder, weights, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
side, epochs, batch, lr = 96, 3, 64, 1e-3
torch.manual_seed(seed)

norm = transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
fit = [transforms.Resize((side, side))]
flip = [transforms.RandomHorizontalFlip()]
train = ImageFolder(f"{folder}/train", transforms.Compose([*fit, *flip, transforms.ToTensor(), norm]))
val, test = (
    ImageFolder(f"{folder}/{name}", transforms.Compose([*fit, transforms.ToTensor(), norm]))
    for name in ("validation", "test")
)
batches = DataLoader(train, batch, shuffle=True)

network = timm.create_model(
    "tf_efficientnet_lite0", pretrained=True, num_classes=len(train.classes), pretrained_cfg_overlay={"file": weights}
).to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(network.parameters(), lr)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * len(batches))
loss_of = nn.CrossEntropyLoss()


def accuracy(images: ImageFolder) -> float:  # noqa: D103
    network.eval()
    with torch.inference_mode():
        right = sum((network(x).argmax(1) == y).sum().item() for x, y in DataLoader(images, 256))
    return right / len(images)


best, kept = -1.0, {}
for epoch in range(epochs):
    network.train()
    for x, y in batches:
        optimizer.zero_grad()
        loss_of(network(x), y).backward()
        optimizer.step()
        schedule.step()
    if (score := accuracy(val)) > best:
        best, kept = score, copy.deepcopy(network.state_dict())
    print(f"epoch {epoch + 1}: val {score:.3f}")
network.load_state_dict(kept)
print(f"val {best:.4f}, test {accuracy(test):.4f}")
