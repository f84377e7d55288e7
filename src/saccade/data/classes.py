"""Class names of the usual data sets, in the order of their labels; `COCO_CATEGORY_IDS` are the ids (1..90, with gaps) of COCO's own files.

Readers take the names from the data where they stand in it; these lists serve the formats that hold numbers alone, and recipes by name.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saccade.errors import DataError, InputError

VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant", "stop sign",
    "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot",
    "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote",
    "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier",
    "toothbrush",
)
_COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_CATEGORY_IDS = tuple(i for i in range(1, 91) if i not in _COCO_GAPS)

COCO_STUFF = (  # of COCO's panoptic files, where they follow the 80 things
    "banner", "blanket", "bridge", "cardboard", "counter", "curtain", "door-stuff", "floor-wood", "flower", "fruit", "gravel", "house", "light",
    "mirror-stuff", "net", "pillow", "platform", "playingfield", "railroad", "river", "road", "roof", "sand", "sea", "shelf", "snow", "stairs",
    "tent", "towel", "wall-brick", "wall-stone", "wall-tile", "wall-wood", "water-other", "window-blind", "window-other", "tree-merged",
    "fence-merged", "ceiling-merged", "sky-other-merged", "cabinet-merged", "table-merged", "floor-other-merged", "pavement-merged",
    "mountain-merged", "grass-merged", "dirt-merged", "paper-merged", "food-other-merged", "building-other-merged", "rock-merged",
    "wall-other-merged", "rug-merged",
)

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CIFAR100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy", "bridge", "bus", "butterfly",
    "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup",
    "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower",
    "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower",
    "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)

MNIST = tuple("0123456789")

FASHION_MNIST = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

_LISTS = {
    "voc": VOC, "coco": COCO, "coco_panoptic": (*COCO, *COCO_STUFF), "cifar10": CIFAR10, "cifar100": CIFAR100, "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
}


def imagenet() -> tuple[str, ...]:
    """The 1000 names of ImageNet-1k in the usual order, as torchvision ships them with its weights."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def named_classes(name: str) -> tuple[str, ...]:
    """The list called `name`: voc, coco, cifar10, cifar100, mnist, fashion_mnist or imagenet. Raises `InputError` for another name."""
    if name == "imagenet":
        return imagenet()
    if name not in _LISTS:
        raise InputError(f"no class list is called {name!r}; known are {', '.join([*_LISTS, 'imagenet'])}, or give the names or a file of names")
    return _LISTS[name]


def read_class_names(file: str | Path) -> tuple[str, ...]:
    """Class names from a text file, one a line. Where every line starts with a WordNet id ("n01440764 tench") that id is left out, unless it is
    all."""
    path = Path(file)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the class names {path} can't be read: {error}; give a UTF-8 text file with one name a line") from error
    lines = [line for line in lines if line]
    if not lines:
        raise DataError(f"the class names {path} are empty; give one name a line, in the order of the labels")
    if all(_is_wordnet_id(line.split()[0]) for line in lines):
        lines = [line.split(None, 1)[-1] for line in lines]
    return tuple(lines)


def resolve_classes(classes: Sequence[str] | str | None, root: Path) -> tuple[str, ...] | None:
    """Class names from what a constructor was given: the names themselves, the name of a list, or a file (relative to `root` or not)."""
    if classes is None:
        return None
    if not isinstance(classes, str):
        return tuple(str(c) for c in classes)
    for file in (root / classes, Path(classes)):
        if file.is_file():
            return read_class_names(file)
    if "." in classes or "/" in classes:
        raise DataError(f"there is no file of class names {root / classes}; give its path relative to the data set's root, or the names")
    return named_classes(classes)


def _is_wordnet_id(word: str) -> bool:
    return len(word) == 9 and word[0] == "n" and word[1:].isdigit()
