"""The PyTorch side of ocr_recognition.py: the two networks of 2018. Needs torch only."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

DECODER, WORD = 128, 128
"""Units of the decoder, numbers of an embedded character."""


class Crnn(nn.Module):
    """From words [N, 1, height, W] of grey pixels to logits [N, W / 8, characters + 1], the blank last."""

    def __init__(self, height: int, characters: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for group, channels in enumerate((16, 32, 64, 128)):
            for _ in range(2):
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(True)]
                before = channels
            if group < 3:
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        self.columns = nn.Sequential(*layers)
        self.recurrence = nn.GRU(128 * height // 8, 200, bidirectional=True, batch_first=True)
        self.out = nn.Linear(400, characters + 1)

    def encoded(self, pixel: Any) -> Any:
        """What both directions make of each column, [N, W / 8, 400]."""
        x = self.columns((pixel.float() - 127.5).contiguous(memory_format=torch.channels_last))
        return self.recurrence(x.permute(0, 3, 1, 2).flatten(2))[0]

    def forward(self, pixel: Any) -> Any:
        return self.out(self.encoded(pixel))


class Attention(Crnn):
    """From words and the characters before each [N, T] to logits [N, T, characters + 2]; two marks are last."""

    def __init__(self, height: int, characters: int) -> None:
        super().__init__(height, characters)
        self.start, self.memory = nn.Linear(200, DECODER, bias=False), nn.Linear(400, DECODER, bias=False)
        self.query, self.score = nn.Linear(DECODER, DECODER, bias=False), nn.Linear(DECODER, 1, bias=False)
        self.table, self.unit = nn.Embedding(characters + 2, WORD), nn.GRUCell(WORD + 400, DECODER)
        self.out = nn.Linear(DECODER, characters + 2)

    def forward(self, pixel: Any, word: Any) -> Any:
        encoded = self.encoded(pixel)
        state, memory, embedded = F.relu(self.start(encoded[:, 0, 200:])), self.memory(encoded), self.table(word)
        states = []
        for step in range(word.shape[1]):
            scores = self.score(torch.tanh(memory + self.query(state).unsqueeze(1)))
            context = (scores.softmax(1) * encoded).sum(1)
            state = self.unit(torch.cat([embedded[:, step], context], 1), state)
            states.append(state)
        return self.out(torch.stack(states, 1))
