"""Whether another task is done in a scene that was laid out for one: for exchanged words."""

from __future__ import annotations

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv


class Judge:
    """An environment that only judges: it looks at the scene of another one, of the same model.

    It knows where its own goal lies from a layout of its own that is drawn alike.
    """

    def __init__(self, environment: SawyerXYZEnv) -> None:
        self.environment = environment
        self._own = environment.model, environment.data

    def look_at(self, scene: SawyerXYZEnv, seed: int) -> None:
        """Begin an episode of `scene`, which was laid out by `seed` just now."""
        judging = self.environment
        judging.model, judging.data = self._own
        judging.seed(seed)
        # Two tasks may draw from different ranges: what was drawn counts, not the seed alone.
        judging._last_rand_vec, judging._freeze_rand_vec = scene._last_rand_vec, True
        judging.reset()
        judging.model, judging.data = scene.model, scene.data

    def observation(self) -> np.ndarray:
        """What the judged task's expert would be shown of the scene, float64 (39,)."""
        return self.environment._get_obs()

    def is_done(self, command: np.ndarray) -> bool:
        """Whether the judged task is done now; command: what the scene was stepped with."""
        return bool(self.environment.evaluate_state(self.observation(), command)[1]["success"])
