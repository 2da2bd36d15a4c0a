"""The things and the scene that the tests of scenes share, and a strategy for seeds."""

from hypothesis import strategies as st

from trl_balcap.scenes.world import Scene, Thing

DISC = Thing("red", "circle", "large", "top", "left")
STAR = Thing("blue", "star", "small", "middle", "right")
TWO = Scene((DISC, STAR))

seeds = st.integers(0, 100_000)
