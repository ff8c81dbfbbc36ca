"""The configuration of a search that takes seconds: two small networks beside a fixed U-Net, on phantoms."""

TINY = """
[study]
name = "tiny"
trials = 3
random_trials = 2
rungs = 1
leaders = 1
seeds = 2
pruner = "none"

[data]
hold_out = "phantom_3"

[phantom]
kidneys = 3
shape = [24, 48, 48]

[space]
encoders = ["tu-resnet10t", "tu-mobilenetv3_small_100"]
decoders = ["PSPNet"]
slices_in = [3]
losses = ["dice", "dice + bce"]
crops = [32]
batch_sizes = [4]

[fit]
steps = 9
crop = 32
batch_size = 4
learning_rate = 3e-3
augmentation = "flips"

[retrain]
steps = 30

[[fixed]]
name = "plain"
candidate = { encoder = "tu-mobilenetv3_small_100", slices_in = 3 }
fit = { loss = "dice + bce" }
"""
