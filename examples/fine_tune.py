"""Fine-tune an earlier model on data of one's own, with people set aside who decide when to stop.

python examples/fine_tune.py     draws people to train on; a minute on two cores
"""

import tempfile
from pathlib import Path

import reprism
from reprism.drawn.layouts import render_market1501
from reprism.training.recipes import RECIPES, Recipe


def changed(**sections: dict) -> Recipe:
    """Return the recipe ``cpu-minutes`` with some of its settings changed."""
    values = RECIPES["cpu-minutes"].model_dump()
    return Recipe.model_validate(values | {name: values[name] | new for name, new in sections.items()})


def main() -> None:
    """Train on some people, fine-tune on others, and print what both models score on the latter's test set."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, seed, people in (("many", 0, 32), ("mine", 1, 24)):
            render_market1501(folder / name, train_identities=people, test_identities=12, size=(96, 48), seed=seed)
        many, mine = (reprism.open_dataset("market1501", folder / name) for name in ("many", "mine"))

        recipe = changed(optimizer={"epochs": 12}, trainer={"evaluate_every": 0})
        earlier = reprism.train(recipe, folder / "earlier", dataset=many)

        recipe = changed(
            data={"validation": 0.25},
            model={"pretrained": earlier.folder / "model.safetensors", "freeze": "trunk"},
            optimizer={"epochs": 12, "lr": 4e-3, "factors": {"branches": 0.5}},
            trainer={"evaluate_every": 3, "patience": 2},
        )
        tuned = reprism.train(recipe, folder / "tuned", dataset=mine)

        for name, run in (("earlier", earlier), ("fine-tuned", tuned)):
            metrics = reprism.evaluate_model(run.model, mine).metrics
            print(f"{name}: rank-1 {metrics.rank(1):.1%}, mAP {metrics.mAP:.1%}")


if __name__ == "__main__":
    main()
