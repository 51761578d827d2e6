from toxtrail.api.audit import audit as audit
from toxtrail.api.gate import gate as gate
from toxtrail.api.load import load as load
from toxtrail.api.texts import compare_texts as compare_texts

__version__: str
