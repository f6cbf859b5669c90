"""What the trainings of a benchmark scored and cost, judged: rows, deviations, a judgement, tables."""
