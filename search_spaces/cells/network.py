"""Networks of cells: the 3D U-shape of family `cells`, and the decoder behind a pretrained encoder of `hybrid`.

The same code builds the supernet, which takes a path, and the decided network, which needs none.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_spaces.cells.cell import Adapter, Cell, EdgeMaker, masked
from search_spaces.cells.operations import SpatialGate, convolution, interpolate, norm
from search_spaces.cells.path import Path, Pick, blend
from search_spaces.cells.skeleton import Skeleton, narrowed

Pair = tuple[Tensor, Tensor]  # outputs of the last two cells


class SkipJoin(nn.Module):
    """The sum of all encoder maps that reach one decoder level, at its resolution and number of channels.

    If all connections are closed, the level's own is open. None if no open connection has a map.
    """

    def __init__(self, skeleton: Skeleton, target: int, channels: Sequence[int]) -> None:
        super().__init__()
        assert skeleton.skips is not None
        self.target, self.options = target, skeleton.skips[target]
        width = skeleton.channels[target]
        sources = [source for source in self.options if channels[source]]
        self.adapters = nn.ModuleDict({str(s): Adapter(skeleton.dims, channels[s], width, target - s) for s in sources})
        self.gates = nn.ModuleDict(
            {str(s): SpatialGate(skeleton.dims, width) for s in sources if "attention" in self.options[s]}
        )

    def forward(self, maps: Sequence[Tensor], path: Path | None, mask: Tensor | None) -> Tensor | None:
        if path is None:
            opened = {s: tuple(Pick(i) for i in range(len(gates))) for s, gates in self.options.items()}
        else:
            opened = {s: path[f"skip/{s}>{self.target}"] for s in self.options}
            if all(self.options[s][p.option] == "closed" for s, picks in opened.items() for p in picks if _counts(p)):
                opened[self.target] = (Pick(1), *opened[self.target])  # the first gate that is not closed
        parts = [
            part if pick.weight is None else part * pick.weight
            for source, picks in opened.items()
            for pick in picks
            if (part := self._value(source, self.options[source][pick.option], maps, mask)) is not None
        ]
        if not parts:
            return None  # none of the open connections has a map in this encoder
        return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]

    def _value(self, source: int, gate: str, maps: Sequence[Tensor], mask: Tensor | None) -> Tensor | None:
        if gate == "closed" or str(source) not in self.adapters:
            return None
        value = masked(self.adapters[str(source)](maps[source]), mask)
        gated: Tensor = self.gates[str(source)](value) if gate == "attention" else value
        return gated


def _counts(pick: Pick) -> bool:
    """Whether a pick contributes to the sum; one that is only compared with another has the value 0."""
    return pick.weight is None or float(pick.weight.detach()) > 0.0


class _Levels(nn.Module):
    """What encoder and decoder share: channel masks of the levels, and stacks of normal cells."""

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__()
        self.skeleton = skeleton

    def mask(self, level: int, path: Path | None, like: Tensor) -> Tensor | None:
        """1 for the channels of a level that the path uses, 0 for the others; None if it uses all of them."""
        picks = None if path is None else path.get(f"width/{level}")
        if picks is None:
            return None
        channels = self.skeleton.channels[level]

        def used(option: int) -> Tensor:
            count = narrowed(channels, self.skeleton.widths[level][option])
            return (torch.arange(channels, device=like.device) < count).to(like.dtype)

        return blend(picks, used).view(1, channels, *[1] * self.skeleton.dims)

    def stack(self, cells: nn.ModuleList, pair: Pair, level: int, path: Path | None, mask: Tensor | None) -> Pair:
        """Applies as many of the cells, one after another, as the path says."""
        picks = None if path is None else path.get(f"depth/{level}")
        options = self.skeleton.depths[level]
        deepest = max(options) if picks is None else max(options[pick.option] for pick in picks)
        pairs = [pair]
        for cell in cells[:deepest]:
            pairs.append((pairs[-1][1], cell(*pairs[-1], path, mask)))
        if picks is None:
            return pairs[-1]
        chosen = picks

        def blended(place: int) -> Tensor:
            return blend(chosen, lambda option: pairs[options[option]][place])

        return blended(0), blended(1)


class CellEncoder(_Levels):
    """A map at the finest resolution -> the maps of all levels, and the last two maps of the coarsest level."""

    def __init__(self, skeleton: Skeleton, make_edge: EdgeMaker) -> None:
        super().__init__(skeleton)
        widths, dims, wiring = skeleton.channels, skeleton.dims, (skeleton.nodes, skeleton.shortcuts)
        self.normal, self.reduction = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            group = skeleton.group(level)
            cells = nn.ModuleList()
            for number in range(max(skeleton.depths[level])):
                finer = (widths[level - 1], 1) if number == 0 and level > 0 else (width, 0)
                cells.append(Cell("encoder_normal", group, dims, (finer, (width, 0)), width, *wiring, make_edge))
            self.normal.append(cells)
            if level + 1 < len(widths):
                inputs = ((width, 0), (width, 0))
                self.reduction.append(Cell("reduction", group, dims, inputs, widths[level + 1], *wiring, make_edge))

    def forward(self, image: Tensor, path: Path | None) -> tuple[list[Tensor], Pair]:
        maps = []
        pair = (image, image)
        for level, cells in enumerate(self.normal):
            pair = self.stack(cells, pair, level, path, self.mask(level, path, image))  # type: ignore[arg-type]
            maps.append(pair[1])
            if level < len(self.reduction):
                mask = self.mask(level + 1, path, image)
                pair = (pair[1], self.reduction[level](*pair, path, mask))
        return maps, pair


class CellDecoder(_Levels):
    """The maps of an encoder, and its last two at the coarsest level -> a map at the finest level.

    channels: those of the encoder's maps, by level; a level with 0 channels has no map. With `skip_cells` each level's
    own map passes through a cell before it is joined.
    """

    def __init__(
        self, skeleton: Skeleton, channels: Sequence[int], make_edge: EdgeMaker, skip_cells: bool = False
    ) -> None:
        super().__init__(skeleton)
        widths, dims, wiring = skeleton.channels, skeleton.dims, (skeleton.nodes, skeleton.shortcuts)
        self.joins, self.skip_cells = nn.ModuleDict(), nn.ModuleDict()
        self.expansion, self.normal = nn.ModuleDict(), nn.ModuleDict()
        bottom = skeleton.levels - 1
        before = [channels[bottom], channels[bottom]]  # channels of the two maps that the next expansion receives
        for level in range(bottom - 1, -1, -1):
            group, width, name = skeleton.group(level), widths[level], str(level)
            inputs = ((before[0], 0), (before[1], 0))
            self.expansion[name] = Cell("expansion", group, dims, inputs, width, *wiring, make_edge)
            skip = channels[level]
            if skeleton.skips is not None:
                self.joins[name], skip = SkipJoin(skeleton, level, channels), width
            if skip and skip_cells:
                self.skip_cells[name] = Cell("skip", group, dims, ((skip, 0), (skip, 0)), width, *wiring, make_edge)
                skip = width
            cells = nn.ModuleList()
            for number in range(max(skeleton.depths[level])):
                first = (skip or width, 0) if number == 0 else (width, 0)
                cells.append(Cell("decoder_normal", group, dims, (first, (width, 0)), width, *wiring, make_edge))
            self.normal[name] = cells
            before = [width, width]

    def forward(self, maps: Sequence[Tensor], pair: Pair, path: Path | None) -> Tensor:
        for name, expand in self.expansion.items():
            level = int(name)
            mask = self.mask(level, path, pair[1])
            risen = expand(*pair, path, mask)
            skip = self._skip(level, maps, path, mask)
            pair = self.stack(self.normal[name], (risen if skip is None else skip, risen), level, path, mask)  # type: ignore[arg-type]
        return pair[1]

    def _skip(self, level: int, maps: Sequence[Tensor], path: Path | None, mask: Tensor | None) -> Tensor | None:
        name = str(level)
        skip: Tensor | None = self.joins[name](maps, path, mask) if name in self.joins else maps[level]
        if skip is None or not skip.shape[1]:
            return None  # the encoder has no map at this level
        return self.skip_cells[name](skip, skip, path, mask) if name in self.skip_cells else skip


class CellNetwork(nn.Module):
    """Family `cells`: float (B, D, H, W) -> logits (B, D, H, W), entirely in three dimensions."""

    def __init__(self, skeleton: Skeleton, make_edge: EdgeMaker) -> None:
        super().__init__()
        self.skeleton, width = skeleton, skeleton.channels[0]
        self.stems = nn.ModuleDict(
            {
                str(stride): nn.Sequential(
                    convolution(3)(1, width, 3, stride=stride, padding=1, bias=False), norm(3, width, affine=True)
                )
                for stride in skeleton.stem_strides
            }
        )
        self.encoder = CellEncoder(skeleton, make_edge)
        self.decoder = CellDecoder(skeleton, skeleton.channels, make_edge)
        self.head = Head(3, width, 1)

    def forward(self, image: Tensor, path: Path | None = None) -> Tensor:
        picks = None if path is None else path.get("stem")
        strides = self.skeleton.stem_strides
        if picks is None:
            return self._at_stride(strides[0], image, path)
        return blend(picks, lambda option: self._at_stride(strides[option], image, path))

    def _at_stride(self, stride: int, image: Tensor, path: Path | None) -> Tensor:
        stem: Tensor = self.stems[str(stride)](image[:, None])
        mask = self.encoder.mask(0, path, stem)
        maps, pair = self.encoder(masked(stem, mask), path)
        logits: Tensor = self.head(self.decoder(maps, pair, path))
        return (interpolate(logits, 2) if stride == 2 else logits)[:, 0]


class HybridNetwork(nn.Module):
    """Family `hybrid`: float (B, k, H, W) -> logits (B, m, H, W); an unchanged 2D encoder, a decoder of cells."""

    def __init__(
        self, encoder: nn.Module, channels: Sequence[int], skeleton: Skeleton, make_edge: EdgeMaker, classes: int
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = CellDecoder(skeleton, channels, make_edge, skip_cells=True)
        self.head = Head(2, skeleton.channels[0], classes)

    def forward(self, image: Tensor, path: Path | None = None) -> Tensor:
        maps: list[Tensor] = self.encoder(image)
        logits: Tensor = self.head(self.decoder(maps, (maps[-1], maps[-1]), path))
        return logits


class Head(nn.Sequential):
    """(B, C, ...) -> logits (B, classes, ...); initially predicts a small probability, because vessels are rare."""

    def __init__(self, dims: int, channels: int, classes: int, start: float = -2.0) -> None:
        last = convolution(dims)(channels, classes, 1)
        if last.bias is not None:
            nn.init.constant_(last.bias, start)
        super().__init__(nn.ReLU(), last)
