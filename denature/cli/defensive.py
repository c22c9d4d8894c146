"""denature reproduce defensive-distillation: does it protect, and when is that an illusion?"""

from dataclasses import replace
from pathlib import Path

from denature.cli.options import Showing, ShowingOptions, Surviving, SurvivingOptions
from denature.train.config import Device, Precision


def defensive_distillation(
    *,
    scale: str = "cpu",
    seeds: int | None = None,
    data_root: Path | None = None,
    out: Path = Path("runs/defensive-distillation"),
    device: Device = "auto",
    precision: Precision = "auto",
    surviving: SurvivingOptions = Surviving(),
    showing: ShowingOptions = Showing(),
) -> None:
    """Distil at temperatures from 1 to 100 and attack, with the temperature left and put back.

    Beside it an undefended network and an adversarially trained one, on the same samples.

    Args:
        scale: smoke, on digits; cpu, CIFAR-10 with the original's network and fewer images and
            epochs; paper, all of it, for a GPU.
        seeds: How often everything is repeated, on the same samples; 1 for cpu, 3 for the others by
            default.
        data_root: Where cifar10/ lies; fetched by default.
        out: Folder for everything.
        device: Where to compute.
        precision: In which precision networks are trained; attacks are in fp32.
    """
    from denature.cli.show import print_table
    from denature.recipes.defensive import reproduce, setting
    from denature.recipes.paper.settings import data_at

    chosen = setting(scale).on(device, precision)
    chosen = replace(chosen, seeds=chosen.seeds if seeds is None else seeds)
    data = data_at(data_root, "cifar10") if chosen.data == "cifar10" else chosen.data
    stopper = surviving.stopper()
    with stopper.on_signals():
        found = reproduce(
            chosen,
            data,
            out,
            keeping=surviving.keeping(),
            stopper=stopper,
            progress=showing.display(),
        )
    if showing.json:
        print(found.to_json())
        return
    print(f"Attack success in percent at {found.budget:g} in linf. {found.differs}")
    print_table(found.lines)
    for sentence in found.verdict:
        print(sentence)
    print(f"Look at {found.folder / 'report.html'}")
