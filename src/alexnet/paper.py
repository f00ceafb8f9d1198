"""The paper of 2012 as data: its layers, hyper-parameters and results, each with its section.

Krizhevsky, Sutskever, Hinton: "ImageNet Classification with Deep Convolutional Neural
Networks", NIPS 2012. Nothing here is computed and nothing elsewhere repeats it: `variants.py`
reads these numbers, `arithmetic.py` derives the rest (shapes, parameters, multiply-adds), and
`tests/paper/` holds the two together.
"""

# The net (sections 3.1-3.5 and figure 2). Kernels are written as the paper writes them:
# one tower's times two.
INPUT_SIZE = 224
INPUT_CHANNELS = 3
TOWERS = 2
KERNELS = (48 * 2, 128 * 2, 192 * 2, 192 * 2, 128 * 2)  # conv1 ... conv5
KERNEL_SIZES = (11, 5, 3, 3, 3)
STRIDES = (4, 1, 1, 1, 1)
SEES_BOTH_TOWERS = (True, False, True, False, False)  # conv3 reads every map of conv2; conv1 reads the picture
UNITS = (2048 * 2, 2048 * 2)  # fc6, fc7
CLASSES = 1000

POOL_SIZE, POOL_STRIDE = 3, 2  # section 3.4: z = 3, s = 2, so neighbouring windows overlap

# Local response normalisation (section 3.3): b = a / (k + alpha * sum a^2)^beta over n
# neighbouring channels.
LRN_N, LRN_K, LRN_ALPHA, LRN_BETA = 5, 2.0, 1e-4, 0.75

# Section 4.2 and section 5.
DROPOUT = 0.5
BATCH_SIZE = 128
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
LEARNING_RATE = 0.01
LEARNING_RATE_FACTOR = 0.1  # "divided by 10 when the validation error rate stopped improving"
EPOCHS = 90
INIT_STD = 0.01
INIT_BIAS_ONE = ("conv2", "conv4", "conv5", "fc6", "fc7")  # biases that start at 1, "the early stages of learning"

# Section 4.1: 256 x 256 pictures, 224 x 224 crops, mirrors, and colour noise along
# the principal components.
STORED_SIZE = 256
COLOUR_NOISE = 0.1

# What the paper says of itself in words.
STATED_PARAMETERS = 60_000_000
STATED_NEURONS = 650_000  # section 3.5 lists 253,440 for conv1, a slip for 55 * 55 * 96 = 290,400
TRAINING_IMAGES = 1_281_167  # ILSVRC-2012

#: (data set, net) -> (top-1 error, top-5 error) in per cent; None where the paper gives no number.
REPORTED_ERRORS: dict[tuple[str, str], tuple[float | None, float]] = {
    ("ILSVRC-2010 test", "1 CNN, ten views"): (37.5, 17.0),
    ("ILSVRC-2010 test", "1 CNN, centre crop"): (39.0, 18.3),
    ("ILSVRC-2012 validation", "1 CNN"): (40.7, 18.2),
    ("ILSVRC-2012 validation", "5 CNNs"): (38.1, 16.4),
    ("ILSVRC-2012 validation", "1 CNN, pre-trained on 2011"): (39.0, 16.6),
    ("ILSVRC-2012 validation", "7 CNNs, two pre-trained on 2011"): (36.7, 15.4),
    ("ILSVRC-2012 test", "7 CNNs, two pre-trained on 2011"): (None, 15.3),
}

#: Epochs to 25 % training error of tanh units over those of ReLUs, on CIFAR-10, without
#: regularisation (figure 1).
TANH_EPOCHS, TANH_TRAINING_ERROR = 6.0, 0.25
#: What each idea was worth, in points of top-1 and top-5 error (sections 3.2-3.4).
REPORTED_GAINS = {"two towers": (1.7, 1.2), "local response normalisation": (1.4, 1.2), "overlapping pooling": (0.4, 0.3)}
#: Points of top-1 error that the paper gives in words: colour noise "over 1 %" (section 4.1), a
#: middle layer "about 2 %" (7).
COLOUR_NOISE_GAIN, MIDDLE_LAYER_GAIN = 1.0, 2.0
#: Not in the paper: the errors of a net whose towers never talk, in per cent, from the notes
#: of the program of 2012.
NEVER_TALK_ERRORS, TALK_ERRORS = (41.8280, 19.3300), (40.6640, 18.2100)
