"""Property tests are not timed: machines are noisy, and a slow example is no wrong one."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
