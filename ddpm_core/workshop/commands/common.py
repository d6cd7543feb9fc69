"""What several commands share."""

GUIDANCE = 1.5  # chosen by measurement in chapter 10
TEXT_MODEL = "toy-cars-text-32"  # what draws where no weights are named
