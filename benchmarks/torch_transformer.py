"""The PyTorch side of neural_machine_translation.py: a Transformer (Vaswani et al., arXiv:1706.03762), pre-norm, with tied
embeddings and scaled_dot_product_attention. Needs torch only."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Of several heads, without biases."""

    def __init__(self, d_model: int, heads: int, rate: float) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(d_model, d_model, bias=False) for _ in range(4))
        self.heads, self.rate = heads, rate

    def split(self, x: Any) -> Any:
        """[N, T, d_model] -> [N, heads, T, d_head]."""
        return x.view(x.shape[0], -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2)

    def forward(self, x: Any, memory: Any, causal: bool) -> Any:
        """Of `x` [N, T, d_model] to `memory` [N, S, d_model]."""
        dropout = self.rate if self.training else 0.0
        q, k, v = self.split(self.q(x)), self.split(self.k(memory)), self.split(self.v(memory))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)
        return self.o(y.transpose(1, 2).reshape(x.shape))


class Layer(nn.Module):
    """Of the encoder or, with attention to what that says, of the decoder."""

    def __init__(self, d_model: int, d_inner: int, heads: int, rate: float, decoder: bool) -> None:
        super().__init__()
        self.own = Attention(d_model, heads, rate)
        self.cross = Attention(d_model, heads, rate) if decoder else None
        self.inner = nn.Sequential(
            nn.Linear(d_model, d_inner), nn.ReLU(), nn.Dropout(rate), nn.Linear(d_inner, d_model)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(3 if decoder else 2))
        self.dropout = nn.Dropout(rate)

    def forward(self, x: Any, memory: Any = None) -> Any:
        """[N, T, d_model] -> the same."""
        y = self.norms[0](x)
        x = x + self.dropout(self.own(y, y, self.cross is not None))
        if self.cross is not None:
            x = x + self.dropout(self.cross(self.norms[2](x), memory, False))
        return x + self.dropout(self.inner(self.norms[1](x)))

    def step(self, x: Any, position: Any, keys: Any, values: Any, seen: Any, memory: tuple[Any, Any]) -> Any:
        """One word of `x` [N, K, d_model]; fills `position` of keys and values [N * K, heads, length, d_head]."""
        rows, beams, d_model = x.shape
        y = self.norms[0](x).view(rows * beams, 1, d_model)
        keys.index_copy_(2, position, self.own.split(self.own.k(y)))
        values.index_copy_(2, position, self.own.split(self.own.v(y)))
        y = F.scaled_dot_product_attention(self.own.split(self.own.q(y)), keys, values, attn_mask=seen)
        x = x + self.own.o(y.transpose(1, 2).reshape(rows, beams, d_model))
        q = self.cross.split(self.cross.q(self.norms[2](x)))
        y = F.scaled_dot_product_attention(q, *memory)
        x = x + self.cross.o(y.transpose(1, 2).reshape(rows, beams, d_model))
        return x + self.inner(self.norms[1](x))


class Transformer(nn.Module):
    """From words [N, S], [N, T] and labels [N, T] to the loss with label smoothing 0.1."""

    def __init__(
        self, d_model: int, d_inner: int, heads: int, layers: int, rate: float, vocabulary: int, length: int
    ) -> None:
        super().__init__()
        self.scale, self.length = math.sqrt(d_model), length
        self.table = nn.Embedding(vocabulary, d_model)
        nn.init.normal_(self.table.weight, 0, d_model**-0.5)
        self.register_buffer("positions", torch.randn(length, d_model))
        sizes = (d_model, d_inner, heads, rate)
        self.encoder = nn.ModuleList(Layer(*sizes, decoder=False) for _ in range(layers))
        self.decoder = nn.ModuleList(Layer(*sizes, decoder=True) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(2))
        self.dropout = nn.Dropout(rate)

    def embed(self, words: Any) -> Any:
        """[N, T] -> [N, T, d_model]."""
        return self.dropout(self.table(words) * self.scale + self.positions[: words.shape[1]])

    def encode(self, source: Any) -> Any:
        """[N, S] -> [N, S, d_model]."""
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x)
        return self.norms[0](x)

    def forward(self, source: Any, target: Any, label: Any) -> Any:
        memory, x = self.encode(source), self.embed(target)
        for layer in self.decoder:
            x = layer(x, memory)
        logits = F.linear(self.norms[1](x), self.table.weight)
        return F.cross_entropy(logits.flatten(0, 1), label.flatten(), label_smoothing=0.1)

    def prepare(self, source: Any) -> list[tuple[Any, Any]]:
        """Keys and values of cross-attention, [N, heads, S, d_head]."""
        memory = self.encode(source)
        return [
            (layer.cross.split(layer.cross.k(memory)), layer.cross.split(layer.cross.v(memory)))
            for layer in self.decoder
        ]

    def step(self, word: Any, position: Any, keys: Any, values: Any, memory: list[tuple[Any, Any]]) -> Any:
        """Logits [N, K, V]; fills `position` of keys and values [layers, N * K, heads, length, d_head]."""
        x = self.table(word) * self.scale + self.positions[position]
        seen = (torch.arange(self.length, device=word.device) <= position)[None, None, None]
        for index, layer in enumerate(self.decoder):
            x = layer.step(x, position, keys[index], values[index], seen, memory[index])
        return F.linear(self.norms[1](x), self.table.weight)
