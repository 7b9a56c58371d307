"""How often the discriminator's pictures are changed: as often as it takes not to learn the photographs by heart."""

from __future__ import annotations

import warnings
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class AugmentationControl:
    """Adapts the probability p of changes to how surely the discriminator knows the photographs.

    Over a few batches r = E[sign D(photograph)] is taken: 0 where the discriminator cannot tell, 1 where it knows every
    photograph. Then

        p <- p + sign(r - target) (photographs seen since) / images,   kept within [0, largest].

    Attributes:
        target: Value of r that is aimed at.
        images: Photographs in which p can go from 0 to 1.
        largest: Upper bound of p.
        p: The probability now.
        signs: Sum of the signs since p was last adapted.
        seen: How many photographs they are of.
        warned: Whether it was said that p has met its bound.

    References:
        Karras et al. 2020 (ADA).
    """

    target: float
    images: float
    largest: float
    p: float = 0.0
    signs: float = 0.0
    seen: int = 0
    warned: bool = False

    def see(self, signs: float, count: int) -> None:
        """Takes in the sum of the signs of the logits of `count` photographs."""
        self.signs, self.seen = self.signs + signs, self.seen + count

    def adapt(self) -> float:
        """Adapts p to what was seen since the last time, and gives r; warns once when p meets its bound."""
        if not self.seen:
            return 0.0
        overfitting = self.signs / self.seen
        direction = (overfitting > self.target) - (overfitting < self.target)
        wanted = self.p + direction * self.seen / self.images
        self.p = min(max(wanted, 0.0), self.largest)
        if wanted > self.largest and not self.warned:
            self.warned = True
            warnings.warn(
                f"The discriminator knows the photographs by heart even though {self.largest:.0%} of changes are made; "
                "more would show in generated pictures. Train shorter, freeze more of its blocks, or add photographs.",
                stacklevel=2,
            )
        self.signs, self.seen = 0.0, 0
        return overfitting
