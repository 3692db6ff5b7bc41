"""Fine-tune an earlier model on one's own data: trunk frozen, epoch chosen by training people set aside.

python examples/fine_tune.py     draws people of two sites; half a minute on two cores
"""

import tempfile
from pathlib import Path

import reprism
from reprism.drawn.layouts import render_market1501
from reprism.training.recipes import RECIPES, Recipe


def recipe_of(name: str, root: Path, **changes: dict) -> Recipe:
    """Return the recipe cpu-minutes with other settings, each given as a section's fields."""
    values = RECIPES["cpu-minutes"].model_dump()
    for section, fields in {"data": {"root": root}, **changes}.items():
        values[section] = values[section] | fields
    return Recipe.model_validate(values | {"name": name})


def main() -> None:
    """Train on one site, go on from there on another, and print what both models score on the second."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sites = [
            render_market1501(folder / f"site{seed}", train_identities=24, test_identities=12, size=(96, 48), seed=seed)
            for seed in (1, 2)
        ]
        first = recipe_of("first", sites[0], optimizer={"epochs": 5, "milestones": ()}, trainer={"evaluate_every": 0})
        earlier = reprism.train(first, folder / "first").folder / "model.safetensors"
        tuned = recipe_of(
            "tuned",
            sites[1],
            # Some training people choose the epoch; the people tested with take no part in that.
            data={"root": sites[1], "validation": 0.25},
            model={"pretrained": earlier, "freeze": "trunk"},
            optimizer={"epochs": 3, "lr": 1e-3, "factors": {"branches": 0.3}},
            trainer={"evaluate_every": 1, "patience": 2},
        )
        result = reprism.train(tuned, folder / "tuned")
        before = reprism.evaluate_model(earlier, reprism.open_dataset("market1501", sites[1])).metrics
        print(f"before: rank-1 {before.rank(1):.1%}, mAP {before.mAP:.1%}")
        after = result.metrics
        print(f"after:  rank-1 {after['rank1']:.1%}, mAP {after['mAP']:.1%}; epoch {after['epoch']} was kept")


if __name__ == "__main__":
    main()
