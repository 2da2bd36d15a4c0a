"""The paper's ablations on scenes: arms, measures, claims, plots and the results page."""
