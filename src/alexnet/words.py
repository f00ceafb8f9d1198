"""What the project says about a network, in English and in Chinese: one catalogue for the
explanations, the drawings and pages.

A key has the same placeholders in every language, and a test holds the keys equal. Names of layers
(conv1, norm1) are the same in all languages.

>>> word("learned", "en", total=8, convolutional=5, connected=3)
'8 learned layers: 5 convolutional + 3 fully connected'
"""

from typing import Literal, get_args

from alexnet.errors import AlexNetError

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

ENGLISH = {
    # the network
    "title": "{name}{changed}, input [{side},{side},3], {classes} classes",
    "learned": "{total} learned layers: {convolutional} convolutional + {connected} fully connected",
    # a line's label
    "kernels": "kernels",
    "kernel_size": "kernel_size",
    "window_size": "kernel_size",
    "padding": "padding",
    "stride": "stride",
    "input_size": "input_size",
    "output_size": "output_size",
    "units": "units",
    "parameters": "parameters",
    "multiply_adds": "multiply-adds",
    "receptive_field": "receptive field",
    "reads": "each kernel reads",
    "in_training": "in training",
    "at_test": "at test",
    # a line's value
    "field": "{side} x {side} pixels, one every {jump}",
    "field_whole": "{side} x {side} pixels, the whole picture",
    "rounded": "{exact}, rounded down: {size}",
    "reads_picture": "the picture's {all} colours",
    "reads_all": "all {all} maps",
    "reads_both": "all {all} maps, those of both towers",
    "reads_own": "{own} of the {all} maps, those of its own tower",
    "relu_rule": "f(x) = max(0, x), for each of {values} values",
    "tanh_rule": "f(x) = tanh(x), for each of {values} values",
    "lrn_rule": "b = a / ({k} + {coefficient} * sum of a^2 over {size} channels) ^ {beta}",
    "lrn_tower_rule": "b = a / ({k} + {coefficient} * sum of a^2 over {size} channels of its tower) ^ {beta}",
    "spatial_rule": "b = a / ({k} + {coefficient} * sum of a^2 over {size} x {size} pixels of one map) ^ {beta}",
    "dropout_zero": "each unit becomes 0 with probability {rate}",
    "dropout_grown": "each unit becomes 0 with probability {rate}; the others are divided by {kept}",
    "dropout_shrunk": "every unit times 1 - {rate} = {kept}",
    "dropout_nothing": "nothing",
    "softmax_rule": "p_i = e^z_i / (e^z_1 + ... + e^z_{count}): {count} probabilities whose sum is 1",
    "colon": ": ",
}

CHINESE = {
    "title": "{name}{changed}，输入 [{side},{side},3]，{classes} 个类别",
    "learned": "{total} 个学习层：{convolutional} 个卷积层 + {connected} 个全连接层",
    "kernels": "卷积核个数",
    "kernel_size": "卷积核大小",
    "window_size": "池化核大小",
    "padding": "填充",
    "stride": "步长",
    "input_size": "输入尺寸",
    "output_size": "输出尺寸",
    "units": "神经元个数",
    "parameters": "参数量",
    "multiply_adds": "乘加次数",
    "receptive_field": "感受野",
    "reads": "每个卷积核读取",
    "in_training": "训练时",
    "at_test": "测试时",
    "field": "{side} x {side} 像素，每隔 {jump} 像素一个",
    "field_whole": "{side} x {side} 像素，即整张图片",
    "rounded": "{exact}，向下取整得 {size}",
    "reads_picture": "图片的 {all} 个颜色通道",
    "reads_all": "全部 {all} 张特征图",
    "reads_both": "全部 {all} 张特征图（两个塔都读）",
    "reads_own": "{all} 张特征图中的 {own} 张（只读本塔）",
    "relu_rule": "f(x) = max(0, x)，逐个作用于 {values} 个值",
    "tanh_rule": "f(x) = tanh(x)，逐个作用于 {values} 个值",
    "lrn_rule": "b = a / ({k} + {coefficient} * 相邻 {size} 个通道的 a^2 之和) ^ {beta}",
    "lrn_tower_rule": "b = a / ({k} + {coefficient} * 本塔内相邻 {size} 个通道的 a^2 之和) ^ {beta}",
    "spatial_rule": "b = a / ({k} + {coefficient} * 同一特征图内 {size} x {size} 像素的 a^2 之和) ^ {beta}",
    "dropout_zero": "每个神经元以 {rate} 的概率置 0",
    "dropout_grown": "每个神经元以 {rate} 的概率置 0，其余除以 {kept}",
    "dropout_shrunk": "每个神经元乘以 1 - {rate} = {kept}",
    "dropout_nothing": "不做任何处理",
    "softmax_rule": "p_i = e^z_i / (e^z_1 + ... + e^z_{count})：{count} 个概率，总和为 1",
    "colon": "：",
}

CATALOGUE: dict[str, dict[str, str]] = {"en": ENGLISH, "zh": CHINESE}


def word(key: str, language: str, **values: object) -> str:
    """The words of `key` in a language, with `values` in their places.

    Raises:
        AlexNetError: a language that is not there.
    """
    if language not in CATALOGUE:
        raise AlexNetError(f"language (={language!r}) must be one of {', '.join(LANGUAGES)}.")
    return CATALOGUE[language][key].format(**values)
