"""Forward and backward passes of the learner's networks, written out over buffers that are made once.

The numbers are those of plain autograd through `nets` (`tests/policies/test_sac_update.py`); what is saved, at this size on one CPU
core, is much of what is not matrix products: graph, allocation, most kernels. A LayerNorm out of row means and norms takes half of
torch's own, a product with few columns is several times faster with its narrow operand transposed, nets on the same number of rows
share their elementwise kernels, and a gradient is written where it belongs in the flat vector.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_EPSILON = 1e-5  # of the LayerNorm
Views = Mapping[str, Tensor]


class CriticPass:
    """Ensembles of critics, each on an input of its own, all with ``rows`` rows.

    ``parts``: named views (`nets.critic_layout`) of each ensemble's flat vector, which may change in place between calls. ``inputs``: what
    each is evaluated on, (rows, D + A); fill them before `forward`. Only the first part can be differentiated.
    """

    def __init__(self, parts: Sequence[Views], inputs: Sequence[Tensor]) -> None:
        first = parts[0]
        self.inputs, self._parts = list(inputs), list(parts)
        rows = len(inputs[0])
        self._ensemble, _, hidden = first["critic.w0"].shape
        outputs, like = first["critic.w2"].shape[-1], inputs[0]
        nets = self._ensemble * len(parts)
        self._normal = [like.new_empty(nets, rows, hidden) for _ in range(2)]  # after the LayerNorm
        self._active = [like.new_empty(nets, rows, hidden) for _ in range(2)]  # after the ReLU
        self._mean, self._zeros, self._ones = like.new_empty(nets, rows, 1), like.new_zeros(nets, rows, 1), like.new_ones(nets, rows, 1)
        self._scale = [like.new_empty(nets, rows, 1) for _ in range(2)]
        self._epsilon = like.new_full((1,), _EPSILON)
        self._values = like.new_empty(nets, rows, outputs)
        self._narrow = [like.new_empty(self._ensemble, outputs, hidden) for _ in parts]  # last layers, transposed
        self._back = [like.new_empty(self._ensemble, rows, hidden) for _ in range(2)]
        self._last = like.new_empty(self._ensemble, outputs, hidden)
        self._products = [self._layer(i) for i in range(3)]

    def _layer(self, layer: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Bias, input, weights and result of each net's product in a layer."""
        found = []
        for p, views in enumerate(self._parts):
            for e in range(self._ensemble):
                n = p * self._ensemble + e
                source = self.inputs[p] if layer == 0 else self._active[layer - 1][n]
                weights = self._narrow[p][e].t() if layer == 2 else views[f"critic.w{layer}"][e]
                result = self._values[n] if layer == 2 else self._normal[layer][n]
                found.append((views[f"critic.b{layer}"][e, 0], source, weights, result))
        return found

    def forward(self) -> Tensor:
        """(parts, E, rows, outputs); a buffer that the next call overwrites."""
        for layer in (0, 1):
            for bias, source, weights, result in self._products[layer]:
                torch.addmm(bias, source, weights, out=result)
            normal, scale = self._normal[layer], self._scale[layer]
            torch.mean(normal, -1, keepdim=True, out=self._mean)
            normal.sub_(self._mean)
            torch.linalg.vector_norm(normal, dim=-1, keepdim=True, out=scale)
            torch.addcmul(self._epsilon, scale, scale, value=1.0 / normal.shape[-1], out=scale)
            normal.mul_(scale.rsqrt_())
            torch.clamp_min(normal, 0.0, out=self._active[layer])
        for views, narrow in zip(self._parts, self._narrow, strict=True):
            narrow.copy_(views["critic.w2"].transpose(1, 2))
        for bias, source, weights, result in self._products[2]:
            torch.addmm(bias, source, weights, out=result)
        return self._values.unflatten(0, (len(self._parts), self._ensemble))

    def backward(self, gradient: Tensor, into: Views | None = None) -> None:
        """From the gradient of the first part's values (E, rows, outputs); into the views ``into`` of a flat gradient, if given."""
        views, (second, first) = self._parts[0], self._back
        for e in range(self._ensemble):
            torch.mm(gradient[e], self._narrow[0][e], out=second[e])
        g1 = self._before_norm(second, 1)
        if into is not None:
            for e in range(self._ensemble):
                torch.mm(gradient[e].t(), self._active[1][e], out=self._last[e])
                torch.mm(self._active[0][e].t(), g1[e], out=into["critic.w1"][e])
            into["critic.w2"].copy_(self._last.transpose(1, 2))
            torch.sum(gradient, 1, keepdim=True, out=into["critic.b2"])
            torch.sum(g1, 1, keepdim=True, out=into["critic.b1"])
        for e in range(self._ensemble):
            torch.mm(g1[e], views["critic.w1"][e].t(), out=first[e])
        self._to_first = self._before_norm(first, 0)
        if into is not None:
            for e in range(self._ensemble):
                torch.mm(self.inputs[0].t(), self._to_first[e], out=into["critic.w0"][e])
            torch.sum(self._to_first, 1, keepdim=True, out=into["critic.b0"])

    def action_gradient(self, actions: int) -> Tensor:
        """After `backward`: the gradient (rows, actions) to the last columns of the first input."""
        weights = self._parts[0]["critic.w0"]
        total = torch.mm(self._to_first[0], weights[0, -actions:].t())
        for e in range(1, self._ensemble):
            total.addmm_(self._to_first[e], weights[e, -actions:].t())
        return total

    def _before_norm(self, gradient: Tensor, layer: int) -> Tensor:
        """From the gradient after the ReLU to the one before the LayerNorm; overwrites ``gradient``."""
        n = self._ensemble
        torch.ops.aten.threshold_backward.grad_input(gradient, self._active[layer][:n], 0, grad_input=gradient)
        normal, shape = self._normal[layer][:n], [gradient.shape[-1]]
        found: Tensor = torch.ops.aten.native_layer_norm_backward(
            gradient, normal, shape, self._zeros[:n], self._ones[:n], None, None, [True, False, False]
        )[0]
        return found.mul_(self._scale[layer][:n])


class MlpPass:
    """A two-layer ReLU MLP (`nets.mlp`) on ``rows`` rows; ``x`` (rows, inputs) is filled before `forward`."""

    def __init__(self, views: Views, prefix: str, rows: int) -> None:
        self._w = [views[f"{prefix}.w{i}"] for i in range(3)]
        self._b = [views[f"{prefix}.b{i}"] for i in range(3)]
        self._prefix = prefix
        like, (inputs, hidden), outputs = self._w[0], self._w[0].shape, self._w[2].shape[1]
        self.x = like.new_empty(rows, inputs)
        self._active = [like.new_empty(rows, hidden) for _ in range(2)]
        self._narrow = like.new_empty(outputs, hidden)
        self._out = like.new_empty(rows, outputs)
        self._last = like.new_empty(outputs, hidden)
        self._back = [like.new_empty(rows, hidden) for _ in range(2)]

    def forward(self) -> Tensor:
        """(rows, outputs); a buffer that the next call overwrites."""
        source = self.x
        for i, active in enumerate(self._active):
            source = torch.addmm(self._b[i], source, self._w[i], out=active).relu_()
        self._narrow.copy_(self._w[2].t())
        return torch.addmm(self._b[2], source, self._narrow.t(), out=self._out)

    def backward(self, gradient: Tensor, into: Views) -> None:
        """From the gradient of the last rows' outputs (n, outputs) into the views ``into`` of a flat gradient."""
        n, prefix = len(gradient), self._prefix
        x, first, second = self.x[-n:], self._active[0][-n:], self._active[1][-n:]
        g1, g0 = self._back[1][:n], self._back[0][:n]
        torch.mm(gradient, self._narrow, out=g1)
        torch.ops.aten.threshold_backward.grad_input(g1, second, 0, grad_input=g1)
        torch.mm(g1, self._w[1].t(), out=g0)
        torch.ops.aten.threshold_backward.grad_input(g0, first, 0, grad_input=g0)
        into[f"{prefix}.w2"].copy_(torch.mm(gradient.t(), second, out=self._last).t())
        torch.mm(first.t(), g1, out=into[f"{prefix}.w1"])
        torch.mm(x.t(), g0, out=into[f"{prefix}.w0"])
        for name, g in (("b2", gradient), ("b1", g1), ("b0", g0)):
            torch.sum(g, 0, out=into[f"{prefix}.{name}"])
