"""Town: a small synthetic world with every annotation, rendered in memory (`saccade.data.town.dataset`, `.classification`)."""
