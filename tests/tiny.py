"""The configuration of a search that takes seconds: two small networks beside a fixed U-Net, on phantoms."""

TINY = """
[study]
name = "tiny"
trials = 2
random_trials = 2
rungs = 1
leaders = 1
seeds = 2
promotion = "none"

[data]
hold_out = "phantom_3"

[phantom]
kidneys = 3
shape = [24, 48, 48]

[space.unet]
encoder = ["tu-resnet10t", "tu-mobilenetv3_small_100"]
decoder = ["PSPNet"]
slices_in = [3]

[space.fit]
loss = ["dice", "dice + bce"]
crop = [32]
batch_size = [4]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
weight_decay = { low = 1e-4, high = 1e-1, log = true }
cooldown = { low = 0.1, high = 0.5 }
vessel_share = { low = 0.5, high = 1.0 }

[space.inference]
overlap = [0.0, 0.25, 0.5]

[fit]
steps = 9
warm_up_steps = 2
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
