"""What the trainings of a benchmark scored and cost: rows, deviations, a judgement, tables."""
