"""FuScore inside other people's tools. Each module needs an extra of the same name.

- `fuscore_metric.integrations.pyiqa`: `pyiqa.create_metric("fuscore")`; `pip install
  'fuscore-metric[pyiqa]'`.
- `fuscore_metric.integrations.torchmetrics`: `FuScoreMetric`; `pip install
  'fuscore-metric[torchmetrics]'`.
"""
