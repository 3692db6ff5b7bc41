"""Find a person again: embed the crops of two cameras and rank one camera's by distance to a query.

python examples/find_person.py                     draws people; descriptors of a network with random weights
python examples/find_person.py model.safetensors   descriptors of a network that reprism train wrote
"""

import sys
from collections.abc import Sequence

import numpy as np

import reprism
from reprism.drawn.shots import camera, draw_person, person

SEED = 3


def crops(camid: int, identities: Sequence[int]) -> list[np.ndarray]:
    """A picture of every person in one camera, H×W×3 uint8 RGB, as a detector would crop them."""
    place = camera(SEED, camid)
    return [draw_person(person(SEED, pid), place, np.random.default_rng((camid, pid))) for pid in identities]


def main() -> None:
    """Print the ranking of camera 2's people for one person that camera 1 saw."""
    if len(sys.argv) > 1:
        model = reprism.load(sys.argv[1])
    else:
        model = reprism.build_model("p1(s2c2)", "mobilenetv3_small_050", size=(128, 64))
    embedder = reprism.Embedder(model)
    wanted = 4
    query = embedder.embed(crops(1, [wanted]))
    gallery = embedder.embed(crops(2, range(8)))
    distances = np.linalg.norm(gallery - query, axis=1)
    for rank, row in enumerate(np.argsort(distances), start=1):
        print(
            f"{rank}. person {row}  distance {distances[row]:.3f}{'   <- the one looked for' if row == wanted else ''}"
        )


if __name__ == "__main__":
    main()
