"""There and back between two domains."""

from collections.abc import Callable

from jaxtyping import Array, Float

Translate = Callable[[Array], Array]


def there_and_back(
    to_a: Translate, to_b: Translate, a: Float[Array, "B H W C"], b: Float[Array, "B H W D"]
) -> dict[str, Float[Array, "B H W _"]]:
    """Translations by their domain, ``a = F(b)`` and ``b = G(a)``, and ``cycle_a = F(G(a))``, ``cycle_b = G(F(b))``.

    Args:
      to_a: ``F``.
      to_b: ``G``.
      a: images of domain A.
      b: images of domain B; neither belongs to the other.

    Source: Zhu et al., *Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks*, 2017, Fig. 3.
    """
    in_a, in_b = to_a(b), to_b(a)
    return {"a": in_a, "b": in_b, "cycle_a": to_a(in_b), "cycle_b": to_b(in_a)}
