"""The closed table of what a recipe may name with `type:`.

A name stands for a class or function of saccade (or of torchvision's transforms); recipes cannot reach anything else. Entries are strings, so that
reading this table imports nothing.
"""
from __future__ import annotations

# kind -> name -> "module:attribute"
TABLE: dict[str, dict[str, str]] = {
    "models": {
        "DETR": "saccade.models.detr:DETR",
        "DeepLabV2": "saccade.models.deeplab:DeepLabV2",
        "FasterRCNN": "saccade.models.faster_rcnn:FasterRCNN",
        "ImageClassifier": "saccade.models.classifier:ImageClassifier",
        "QDTrack": "saccade.models.qdtrack:QDTrack",
        "SSD": "saccade.models.ssd:SSD",
        "SegmentationEnsemble": "saccade.models.ensemble:SegmentationEnsemble",
    },
    "backbones": {
        "CifarResNet": "saccade.layers.cifar_resnet:CifarResNet",
        "DeepLabVGG16": "saccade.layers.deeplab_vgg:DeepLabVGG16",
        "LeNet5": "saccade.layers.lenet:LeNet5",
        "SSDEfficientNetB3": "saccade.models.ssd_backbones.efficientnet:SSDEfficientNetB3",
        "SSDMobileNetV2": "saccade.models.ssd_backbones.mobilenet_v2:SSDMobileNetV2",
        "SSDMobileNetV3": "saccade.models.ssd_backbones.mobilenet_v3:SSDMobileNetV3",
        "SSDVGG16": "saccade.models.ssd_backbones.vgg:SSDVGG16",
        "ShuffleNetV1": "saccade.layers.shufflenet_v1:ShuffleNetV1",
        "TimmBackbone": "saccade.layers.backbone:TimmBackbone",
        "TimmEncoder": "saccade.layers.encoder:TimmEncoder",
        "TimmSSD": "saccade.models.ssd_backbones.any_timm:TimmSSD",
        "TorchvisionEncoder": "saccade.layers.encoder:TorchvisionEncoder",
    },
    "layers": {
        "Discriminator": "saccade.layers.discriminator:Discriminator",
        "LearnedPositions": "saccade.layers.positions:LearnedPositions",
        "PixelNorm": "saccade.layers.pixels:PixelNorm",
        "SinePositions": "saccade.layers.positions:SinePositions",
        "TrackHead": "saccade.layers.track_head:TrackHead",
        "Transformer": "saccade.layers.transformer:Transformer",
        "TwoStageSettings": "saccade.layers.two_stage:TwoStageSettings",
    },
    "losses": {
        "AsymmetricLoss": "saccade.layers.classification_losses:AsymmetricLoss",
        "BinaryCrossEntropy": "saccade.layers.classification_losses:BinaryCrossEntropy",
        "CrossEntropy": "saccade.layers.classification_losses:CrossEntropy",
        "SetCriterion": "saccade.layers.set_criterion:SetCriterion",
        "SigmoidFocal": "saccade.layers.classification_losses:SigmoidFocal",
    },
    "datasets": {
        "CamVid": "saccade.data.formats.driving_scenes:CamVid",
        "Cifar": "saccade.data.formats.packed_images:Cifar",
        "Cityscapes": "saccade.data.formats.driving_scenes:Cityscapes",
        "ClassBalanced": "saccade.data.combination:ClassBalanced",
        "Coco": "saccade.data.formats.coco:Coco",
        "CocoPanoptic": "saccade.data.formats.coco_panoptic:CocoPanoptic",
        "CocoVideo": "saccade.data.formats.coco_video:CocoVideo",
        "Concat": "saccade.data.combination:Concat",
        "CrowdHuman": "saccade.data.formats.crowdhuman:CrowdHuman",
        "FramePairs": "saccade.data.pairs:FramePairs",
        "Frames": "saccade.data.formats.frames:Frames",
        "Gta5": "saccade.data.formats.driving_scenes:Gta5",
        "ImageFolder": "saccade.data.formats.folders:ImageFolder",
        "ImageList": "saccade.data.formats.folders:ImageList",
        "MatchClasses": "saccade.data.class_matching:MatchClasses",
        "Mnist": "saccade.data.formats.packed_images:Mnist",
        "Mot": "saccade.data.formats.mot:Mot",
        "Repeat": "saccade.data.combination:Repeat",
        "Scalabel": "saccade.data.formats.scalabel:Scalabel",
        "SegmentationFolders": "saccade.data.formats.segmentation:SegmentationFolders",
        "Subset": "saccade.data.combination:Subset",
        "Synthia": "saccade.data.formats.driving_scenes:Synthia",
        "Town": "saccade.data.town.dataset:Town",
        "TownClassification": "saccade.data.town.classification:TownClassification",
        "TownPanoptic": "saccade.data.town.panoptic:TownPanoptic",
        "TownSegmentation": "saccade.data.town.segmentation:TownSegmentation",
        "Voc": "saccade.data.formats.voc:Voc",
        "VocClassification": "saccade.data.formats.voc:VocClassification",
        "Yolo": "saccade.data.formats.yolo:Yolo",
    },
    "transforms": {
        "AutoAugment": "saccade.data.transforms.automatic:AutoAugment",
        "CenterCrop": "saccade.data.transforms.sizes:CenterCrop",
        "Cutout": "saccade.data.transforms.classification:Cutout",
        "EachFrame": "saccade.data.transforms.clips:EachFrame",
        "Expand": "saccade.data.transforms.ssd:Expand",
        "KeepRatioResize": "saccade.data.transforms.sizes:KeepRatioResize",
        "Lighting": "saccade.data.transforms.classification:Lighting",
        "MinIoUCrop": "saccade.data.transforms.ssd:MinIoUCrop",
        "PadTo": "saccade.data.transforms.sizes:PadTo",
        "PhotometricDistort": "saccade.data.transforms.ssd:PhotometricDistort",
        "RandAugment": "saccade.data.transforms.automatic:RandAugment",
        "RandomErasing": "saccade.data.transforms.classification:RandomErasing",
        "RandomResizedCrop": "saccade.data.transforms.classification:RandomResizedCrop",
        "RandomScaleCrop": "saccade.data.transforms.scale_crop:RandomScaleCrop",
        "RandomSelect": "saccade.data.transforms.detr:RandomSelect",
        "RandomShortSideResize": "saccade.data.transforms.detr:RandomShortSideResize",
        "RandomSizeCrop": "saccade.data.transforms.detr:RandomSizeCrop",
        "RandomUnclippedCrop": "saccade.data.transforms.clips:RandomUnclippedCrop",
        "RemoveDegenerate": "saccade.data.transforms.sample_transform:RemoveDegenerate",
        "StrongAugment": "saccade.data.transforms.strong:StrongAugment",
        "ToFloat": "saccade.data.transforms.clips:ToFloat",
    },
    "batch transforms": {
        "CutMix": "saccade.data.transforms.batch:CutMix",
        "Mixup": "saccade.data.transforms.batch:Mixup",
        "OneOf": "saccade.data.transforms.batch:OneOf",
        "ResizeMix": "saccade.data.transforms.batch:ResizeMix",
    },
    "samplers": {
        "AspectRatioGroups": "saccade.data.sampling:AspectRatioGroups",
        "ClassUniform": "saccade.data.sampling:ClassUniform",
        "InSequence": "saccade.data.sampling:InSequence",
        "RepeatFactor": "saccade.data.sampling:RepeatFactor",
        "RepeatedAugmentation": "saccade.data.sampling:RepeatedAugmentation",
        "Shuffled": "saccade.data.sampling:Shuffled",
    },
    "learners": {
        "Adapting": "saccade.adaptation.adapting:Adapting",
        "Supervised": "saccade.learning.supervised:Supervised",
    },
    "terms": {
        "Adversarial": "saccade.adaptation.terms.adversarial:Adversarial",
        "BatchNormStatistics": "saccade.adaptation.terms.batch_norm_statistics:BatchNormStatistics",
        "ClassConsistency": "saccade.adaptation.terms.class_consistency:ClassConsistency",
        "ClassMix": "saccade.adaptation.terms.class_mix:ClassMix",
        "ClassPrior": "saccade.adaptation.terms.class_prior:ClassPrior",
        "DetectionConsistency": "saccade.adaptation.terms.detection_consistency:DetectionConsistency",
        "Distillation": "saccade.adaptation.terms.distillation:Distillation",
        "Entropy": "saccade.adaptation.terms.entropy:Entropy",
        "MapEntropy": "saccade.adaptation.terms.map_entropy:MapEntropy",
        "MaxSquare": "saccade.adaptation.terms.max_square:MaxSquare",
        "MaskedConsistency": "saccade.adaptation.terms.masked_consistency:MaskedConsistency",
        "PatchContrast": "saccade.adaptation.terms.patch_contrast:PatchContrast",
        "Prototypes": "saccade.adaptation.terms.prototypes:Prototypes",
        "PseudoLabelDetection": "saccade.adaptation.terms.pseudo_label_detection:PseudoLabelDetection",
        "PseudoLabels": "saccade.adaptation.terms.pseudo_labels:PseudoLabels",
        "Spread": "saccade.adaptation.terms.spread:Spread",
        "StructureConsistency": "saccade.adaptation.terms.structure_consistency:StructureConsistency",
        "Supervision": "saccade.adaptation.terms.supervision:Supervision",
    },
    "views": {
        "View": "saccade.adaptation.views:View",
    },
    "tasks": {
        "ComputePrototypes": "saccade.engine.prototype_task:ComputePrototypes",
        "WriteLabels": "saccade.engine.label_task:WriteLabels",
    },
    "teachers": {
        "MovingAverage": "saccade.learning.ema:MovingAverage",
    },
    "class shares": {"ClassShares": "saccade.adaptation.class_shares:ClassShares"},
    "fixed networks": {
        "FixedNetwork": "saccade.engine.fixed_network:FixedNetwork",
    },
    "pseudo objects": {
        "ConfidentDetections": "saccade.adaptation.objects:ConfidentDetections",
        "SelfEntropyDescent": "saccade.adaptation.objects:SelfEntropyDescent",
    },
    "pseudo labels": {
        "OnlineLabels": "saccade.adaptation.labels:OnlineLabels",
        "StoredLabels": "saccade.adaptation.labels:StoredLabels",
        "StoredSoftLabels": "saccade.adaptation.labels:StoredSoftLabels",
    },
    "optimizers": {
        "Adam": "saccade.learning.optimizers:Adam",
        "AdamW": "saccade.learning.optimizers:AdamW",
        "RepeatedSGD": "saccade.learning.optimizers:RepeatedSGD",
        "SGD": "saccade.learning.optimizers:SGD",
    },
    "schedules": {
        "Constant": "saccade.learning.schedules:Constant",
        "ConstantWarmup": "saccade.learning.schedules:ConstantWarmup",
        "Cosine": "saccade.learning.schedules:Cosine",
        "Exponential": "saccade.learning.schedules:Exponential",
        "ExponentialWarmup": "saccade.learning.schedules:ExponentialWarmup",
        "LinearWarmup": "saccade.learning.schedules:LinearWarmup",
        "MultiStep": "saccade.learning.schedules:MultiStep",
        "Poly": "saccade.learning.schedules:Poly",
        "Step": "saccade.learning.schedules:Step",
    },
    "metrics": {
        "ClassificationAccuracy": "saccade.metrics.classification:ClassificationAccuracy",
        "CocoDetection": "saccade.metrics.coco:CocoDetection",
        "MeanEntropy": "saccade.metrics.unlabelled:MeanEntropy",
        "MotTracking": "saccade.metrics.tracking:MotTracking",
        "MultiLabelClassification": "saccade.metrics.multilabel:MultiLabelClassification",
        "PanopticQuality": "saccade.metrics.panoptic:PanopticQuality",
        "SegmentationIoU": "saccade.metrics.segmentation:SegmentationIoU",
        "SoftNeighborhoodDensity": "saccade.metrics.unlabelled:SoftNeighborhoodDensity",
        "VocDetection": "saccade.metrics.voc:VocDetection",
    },
    "trackers": {
        "ByteTrack": "saccade.tracking.byte_track:ByteTrack",
        "DeepSORT": "saccade.tracking.appearance:DeepSORT",
        "OCSORT": "saccade.tracking.oc_sort:OCSORT",
        "QuasiDense": "saccade.tracking.quasi_dense:QuasiDense",
        "SORT": "saccade.tracking.sort:SORT",
    },
    "loggers": {
        "Comet": "saccade.engine.loggers:Comet",
        "MLflow": "saccade.engine.loggers:MLflow",
        "TensorBoard": "saccade.engine.loggers:TensorBoard",
        "WandB": "saccade.engine.loggers:WandB",
    },
}

# Sections of a recipe whose class is fixed (the others name theirs with `type:`); None: a typed mapping, or a list of them.
SECTIONS: dict[str, str | None] = {
    "model": None,
    "weights": "saccade.weights.source:WeightSource",
    "data": "saccade.data.settings:DataSettings",
    "learner": None,
    "task": None,
    "metrics": None,
    "online": "saccade.adaptation.online:OnlineSettings",
    "run": "saccade.engine.settings:RunSettings",
}

_TORCHVISION = (
    "AugMix", "AutoAugment", "CenterCrop", "ClampBoundingBoxes", "ColorJitter", "ElasticTransform", "GaussianBlur", "GaussianNoise",
    "Grayscale", "JPEG", "Pad", "RandAugment", "RandomAdjustSharpness", "RandomAffine", "RandomApply", "RandomAutocontrast",
    "RandomChannelPermutation", "RandomCrop", "RandomEqualize", "RandomErasing", "RandomGrayscale", "RandomHorizontalFlip", "RandomInvert",
    "RandomIoUCrop", "RandomPerspective", "RandomPhotometricDistort", "RandomPosterize", "RandomResize", "RandomResizedCrop", "RandomRotation",
    "RandomShortestSize", "RandomSolarize", "RandomVerticalFlip", "RandomZoomOut", "Resize", "RGB", "ScaleJitter", "TrivialAugmentWide",
)


def find_target(name: str) -> str | None:
    """What `name` stands for, as "module:attribute", or None. saccade's own classes come before torchvision's of the same name."""
    for names in TABLE.values():
        if name in names:
            return names[name]
    return f"torchvision.transforms.v2:{name}" if name in _TORCHVISION else None


def known_names(kind: str | None = None) -> list[str]:
    """Every buildable name, or those of one kind."""
    names = {n for k, table in TABLE.items() if kind in (None, k) for n in table}
    return sorted(names | (set(_TORCHVISION) if kind in (None, "transforms") else set()))


def add_plugin(package: str) -> None:
    """Import a package that the user named with `--plugin` and add the classes that it offers.

    The package has a module-level mapping `SACCADE = {kind: {name: "module:attribute"}}`. Raises InputError when it is missing or takes a name
    that exists.
    """
    import importlib

    from saccade.errors import InputError

    try:
        offered = importlib.import_module(package).SACCADE
    except ModuleNotFoundError as error:
        raise InputError(f"--plugin {package}: no module named {error.name!r} is installed or on PYTHONPATH") from None
    except AttributeError:
        raise InputError(f"--plugin {package}: it has no mapping SACCADE = {{kind: {{name: 'module:Class'}}}} that says what it offers") from None
    for kind, names in offered.items():
        if kind not in TABLE:
            raise InputError(f"--plugin {package}: unknown kind {kind!r}; known: {', '.join(TABLE)}")
        for name, target in names.items():
            if find_target(name) not in (None, target):
                raise InputError(f"--plugin {package}: the name {name!r} is taken by {find_target(name)}")
            TABLE[kind][name] = target
