# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Pooling: one label for many instances
#
# Every method of this book gets one label for an image and has to say something of each place in it. That is *multiple-instance
# learning*: a **bag** of instances has a label, the instances have none. What joins the two is the **pooling**, a function from the
# scores of the instances to the score of the bag. It looks like a detail, and it decides which instances learn. This page asks of each pooling:
# whom does it believe, whom does it teach, and what does it do to a bag that is larger?
#
# *Reading time 15 minutes, running time under one. You need nothing but a sigmoid.*

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
preset: str = "quick"  # smoke (seconds) or quick (one minute on a laptop)
seed: int = 0  # the first of the bags, the weights and the order of training

# %%
from cxrlib.bags import PRESETS, PoolingParameters
from cxrlib.parameters import read_parameters

params = read_parameters(PoolingParameters, globals())
settings = PRESETS[params.preset]
settings

# %% [markdown]
# ## A bag
#
# A bag $X = \{x_1, \dots, x_n\}$ is a set: its instances have no order. The usual assumption is that a bag is positive if *at least one* instance
# is, and negative if none is {cite}`ilse2018`. An image is a bag of places: it shows a nodule if some place does. A scorer $s$ looks at one instance at a time
# and gives log-odds $s_i = s(x_i)$, or the probability $S_i = \sigma(s_i)$. Only the pooled score $p$ meets the label.
#
# | Pooling | Formula | Share of the gradient that instance $i$ gets |
# |---|---|---|
# | mean | $\frac{1}{n} \sum_i s_i$ | $1/n$, whatever it shows |
# | LSE | $\frac{1}{r} \log \frac{1}{n} \sum_i e^{r s_i}$ | $\operatorname{softmax}(r s)_i$ |
# | LSE-LBA {cite}`yao2018` | the same of $S$, with $r = r_0 + e^\beta$ | $\operatorname{softmax}(r S)_i$, times $S_i (1 - S_i)$ for log-odds |
# | noisy-or | $1 - \prod_i (1 - \epsilon S_i)$ | $\propto \epsilon S_i (1 - S_i) / (1 - \epsilon S_i)$ |
# | max | $\max_i s_i$ | 1 for the highest, 0 for the others |
# | attention {cite}`ilse2018` | $\sum_i a_i s_i$, $a = \operatorname{softmax}(t)$ | $a_i$; the scores $t_i$ of a second scorer learn, too |
#
# Mean, LSE and max pool log-odds here, LSE-LBA and noisy-or probabilities, as the networks of this book use them (`cxrlib.pooling`). Noisy-or is the probability that at least one instance is
# positive if all err independently; with hundreds of places each may count for only a little, $\epsilon = 0.02$. The attention is the simplest there is, without a gate.
#
# None of them sees the order of instances. A pooling that did could learn where in the image a finding usually is, which is a location prior and
# not a finding.

# %%
import torch

from cxrlib.bags import POOLINGS, pooled

torch.manual_seed(params.seed)
scores = torch.randn(2, 1, 1, 6, 6)  # of the instances, and of attention, of one bag
shuffled = scores.flatten(-2)[..., torch.randperm(36)].view(scores.shape)
for name in POOLINGS:
    assert torch.allclose(pooled(name, scores), pooled(name, shuffled), atol=1e-5)
print("the same after shuffling:", *POOLINGS, sep=" ")

# %% [markdown]
# ## Who learns
#
# A bag with one high and one lower hill of scores. Brightness is each instance's share of the gradient, on a scale of its own for each pooling; for attention we let
# the second scorer agree with the first.

# %% mystnb={"image": {"alt": "Seven small square images: the probabilities of a bag with one high and one lower hill, then who gets the gradient under mean (everyone alike), LSE (the top of the high hill), LSE-LBA (both hills, the high one more), noisy-or (the slopes of both), max (one instance) and attention (mostly the high hill)."}}
import matplotlib.pyplot as plt

from cxrlib import figures_pooling

y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
high = 5 * torch.exp(-((x - 3.2) ** 2 + (y - 3.8) ** 2) / 6)
lower = 3.5 * torch.exp(-((x - 8.5) ** 2 + (y - 8.1) ** 2) / 8)
S = torch.maximum(high, lower) - 3
shares = {}
for name in POOLINGS:
    leaf = S.clone().requires_grad_()
    both = torch.stack([leaf, leaf.detach()])[:, None, None]  # (2, 1, 1, h, w)
    (shares[name],) = torch.autograd.grad(pooled(name, both).sum(), leaf)
figures_pooling.who_learns(S.numpy(), {name: share.numpy() for name, share in shares.items()})
plt.show()

# %% [markdown]
# The mean teaches every instance the label of its bag, the background, too. The maximum teaches one, and if it is the wrong one it teaches the wrong thing. The others lie between. LSE of
# *log-odds* with $r = 5$ is nearly a maximum, because log-odds differ by several units; LSE of *probabilities*, which differ by less than one, is much softer at the same $r$.
#
# ## What perfect scores pool to
#
# Let the scorer be right everywhere: log-odds 3 for positive instances, −3 for the others. What is $p$, by the share of instances that are positive?

# %% mystnb={"image": {"alt": "Line chart: pooled probability of perfect scores against the share of positive instances; max, attention and LSE are high from one instance on, LSE-LBA rises steadily, the mean rises only beyond a third, noisy-or with its small factor ends at one half."}}
from cxrlib import bags

figures_pooling.against(
    100 * bags.by_share([1 / 36, 0.1, 0.3, 0.6, 1.0]).set_axis([3, 10, 30, 60, 100]) / 100,
    "positive instances, %",
    "pooled probability p",
)
plt.show()

# %% [markdown]
# A pooling is a claim about how much of a positive bag is positive. If the claim is wrong, the scorer cannot be right and pool right at once: under the mean it has to call
# background positive, under the maximum nothing asks it to find the rest.
#
# ## Larger bags
#
# Scores that know nothing, in bags of 1 to 1,024 instances: their log-odds are normal with mean −2.

# %% mystnb={"image": {"alt": "Line chart: mean pooled probability of chance scores against the number of instances from 1 to 1024; mean and attention stay near 0.12, LSE-LBA rises a little, LSE and max rise more, noisy-or most."}}
sizes = bags.by_size((1, 2, 4, 8, 16, 32), settings["draws"], params.seed)
figures_pooling.against(sizes, "instances of the bag", "pooled probability p")
plt.show()

# %% [markdown]
# The more instances, the higher is the highest of them by chance, and the likelier it is that one of them errs. A maximum or a noisy-or that was trained on bags of one size calls larger ones positive:
# with images, when it is applied at another resolution. A mean over instances has hardly any bias; LSE-LBA, which is bounded by what probabilities can do at its $r$, a small one.
#
# ## Which one is right?
#
# Now the scorers learn. Bags have 36 instances with eight features; in a positive bag one instance, a tenth, a third or most of them are positive. Half of the positive instances are *plain*, moved
# by three standard deviations along one feature, half are *subtle*, moved by one and a half along another: the dense core of a lesion and its hazy rest. A small network scores each instance,
# and learns from labels of bags alone. We ask it which instances of new positive bags are positive.
#
# All this twice: with a background that is the same in positive and in negative bags, and with one that *knows*: all instances of a positive bag are moved by half a standard deviation along
# a third feature. In radiographs a large effusion changes the whole image, a patient with a tube is a sick patient, and a network whose cells see far carries such news everywhere.

# %%
import time

start = time.monotonic()
table = bags.experiment(settings["seeds"], settings["steps"], settings["bags"], params.seed)
networks = table[["pooling", "context", "share", "seed"]].drop_duplicates()
print(f"{len(networks)} networks in {time.monotonic() - start:.0f} s")

# %% mystnb={"image": {"alt": "Four line charts with intervals over seeds: AUROC of all, plain and subtle positive instances, and of all where the background knows, against the share of positive instances in a positive bag, a line for each of six poolings."}}
PANELS = {
    "all positive instances": ("instances", 0.0),
    "plain ones": ("plain", 0.0),
    "subtle ones": ("subtle", 0.0),
    "all, background knows": ("instances", bags.CONTEXTS[1]),
}


def by_pooling(metric, context):
    """Pooling -> AUROC, seeds as rows and shares, in per cent, as columns."""
    rows = table[(table["metric"] == metric) & (table["context"] == context)]
    rows = rows.assign(share=(100 * rows["share"]).round())
    return {
        name: of.pivot(index="seed", columns="share", values="value")
        for name, of in rows.groupby("pooling", sort=False)
    }


panels = {title: by_pooling(*asked) for title, asked in PANELS.items()}
figures_pooling.learned(panels, "positive instances of a positive bag, %", "AUROC of instances")
plt.show()

# %% [markdown]
# A dot is the mean over seeds, each of which draws its own bags, a bar its 95 % interval. Differences from LSE-LBA within seeds:

# %%
import pandas as pd

from cxrlib import studies

pd.DataFrame(
    {
        (title, f"{share:g} %"): {
            name: studies.show(row)
            for name, row in studies.differences(
                pd.DataFrame({name: of[share] for name, of in panels[title].items()}), "LSE-LBA"
            ).iterrows()
        }
        for title, share in (
            ("all positive instances", 3),
            ("subtle ones", 60),
            ("all, background knows", 10),
            ("all, background knows", 60),
        )
    }
)

# %% [markdown]
# With preset `quick`:
#
# **Most of the bag is positive.** Mean and noisy-or are right: they find the subtle instances, too, which LSE-LBA and max leave near chance and attention below it. What is taught is found, and a pooling that
# believes the highest score teaches only what was plain already. That is the hazy rest of a lesion, and the reason why maps of sharp poolings are small.
#
# **Few are positive, and the background is silent.** The mean is no worse than any other, which may surprise. Its $p$ is useless, as the first chart shows, but scores are *ranked*, and where the background of
# positive and of negative bags is alike, what it wrongly teaches cancels out.
#
# **Few are positive, and the background knows.** Now nothing cancels. With a tenth of positive instances LSE-LBA is a little ahead of the mean and clearly ahead of noisy-or: both answer with the background. With most instances positive
# the mean is ahead again.
#
# **One of 36.** No pooling is reliable on a few hundred bags once the background knows.
#
# **The maximum is a gamble.** In some seeds it is as good as any, in others it ranks even plain instances upside down: it has believed the wrong instance first, and only that one ever learned.
#
# So there is no right pooling, only one that is right for a share, and findings differ in theirs: the median official box of a nodule is half a per cent of the image, that of an enlarged heart 17 ({doc}`data`).
#
# ## Exercises
#
# **1.** A bag of $n$ instances has one score of 1 and else zeros. At which $r$ does LSE pool it to one half? Find it on paper.

# %% tags=["hide-cell"]
import math

from cxrlib.pooling import lse_pool

for n in (36, 576, 10_000):
    one = torch.zeros(1, n)
    one[0, 0] = 1
    # log(1 + (e^r - 1) / n) / r = 1/2; with u = e^(r/2) this is u^2 - 1 = n (u - 1), so u = n - 1
    r = 2 * math.log(n - 1)
    assert abs(lse_pool(one, r).item() - 0.5) < 1e-4
    print(f"n = {n}: r = {r:.1f}")

# %% [markdown]
# The sharpness that a single instance needs grows with the logarithm of the bag. The map of a radiograph has hundreds of places.
#
# **2.** How many instances must noisy-or with $\epsilon = 0.02$ be *sure* of before it calls a bag positive? What does that mean for a nodule?

# %% tags=["hide-cell"]
from cxrlib.pooling import noisy_or_log_odds

needed = math.ceil(math.log(0.5) / math.log(1 - 0.02))
sure = torch.full((1, needed), 50.0)
assert noisy_or_log_odds(sure) > 0 > noisy_or_log_odds(sure[:, 1:])
needed

# %% [markdown]
# A nodule that covers fewer cells of the map than that cannot bring $p$ above one half, however plain it is. Its images are still ranked above others, which is all that an AUROC asks.
#
# **3.** Put every instance of a bag into it once more. Which poolings notice?

# %% tags=["hide-cell"]
torch.manual_seed(0)
S = torch.randn(2, 1, 1, 6, 6)
twice = torch.cat([S, S], dim=-1)
noticed = [name for name in POOLINGS if not torch.allclose(pooled(name, S), pooled(name, twice))]
assert noticed == ["noisy-or"]
noticed

# %% [markdown]
# Noisy-or counts evidence, and an image at twice the resolution has four times as much of it, though it shows nothing new. The bias of the maximum in larger bags has another cause: more instances that are
# *different* by chance.
#
# **To take away.** A pooling says how much of a positive bag is positive, and teaches accordingly. Ask of a method first which instances its label reaches. {doc}`lse_lba` makes the sharpness a number that is learned above a
# bound; {doc}`../book/explore_r0` lets you slide it over the maps of trained networks.
