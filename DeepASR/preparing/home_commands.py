"""The language of the corpus that comes along: Mandarin commands to a home, as sentences of words with their pronunciation.

Pronunciations are initials and finals of pinyin without tones, so 八 and 把, say, sound alike: what is meant follows from the
words around.
"""

from __future__ import annotations

import numpy as np

PINYIN = {
    "请": "q ing", "把": "b a", "打": "d a", "开": "k ai", "关": "g uan", "上": "sh ang", "掉": "d iao",
    "客": "k e", "厅": "t ing", "卧": "w o", "室": "sh i", "厨": "ch u", "房": "f ang", "书": "sh u", "阳": "y ang",
    "台": "t ai", "的": "d e", "灯": "d eng", "空": "k ong", "调": "t iao", "电": "d ian", "视": "sh i",
    "窗": "ch uang", "帘": "l ian", "风": "f eng", "扇": "sh an", "音": "y in", "乐": "y ue", "到": "d ao",
    "度": "d u", "温": "w en", "播": "b o", "放": "f ang", "第": "d i", "首": "sh ou", "歌": "g e", "新": "x in",
    "闻": "w en", "明": "m ing", "今": "j in", "天": "t ian", "气": "q i", "怎": "z en", "么": "m e", "样": "y ang",
    "北": "b ei", "京": "j ing", "海": "h ai", "广": "g uang", "州": "zh ou", "现": "x ian", "在": "z ai",
    "几": "j i", "点": "d ian", "给": "g ei", "妈": "m a", "爸": "b a", "话": "h ua", "大": "d a", "声": "sh eng",
    "小": "x iao", "一": "y i", "二": "er", "三": "s an", "四": "s i", "五": "w u", "六": "l iu", "七": "q i",
    "八": "b a", "九": "j iu", "十": "sh i", "半": "b an", "闹": "n ao", "钟": "zh ong", "定": "d ing",
}  # fmt: skip
"""Of each character: the sounds that it is made of."""
ROOMS = ("客厅", "卧室", "厨房", "书房", "阳台")
DEVICES = ("灯", "空调", "电视", "窗帘", "风扇")
DIGITS = ("一", "二", "三", "四", "五", "六", "七", "八", "九")


def draw_sentence(rng: np.random.Generator) -> str:
    """A command, its words separated by blanks."""

    def one(*choices: str) -> str:
        return choices[rng.integers(len(choices))]

    def number(high: int) -> str:
        value = int(rng.integers(1, high))
        tens, units = divmod(value, 10)
        words = [DIGITS[tens - 1]] * (tens > 1) + ["十"] * (tens > 0) + [DIGITS[units - 1]] * (units > 0)
        return " ".join(words)

    room, device = one(*ROOMS), one(*DEVICES)
    pattern = rng.integers(9)
    if pattern == 0:
        return f"{one('打开', '关上')} {room} 的 {device}"
    if pattern == 1:
        return f"把 {room} 的 {device} {one('打开', '关上', '关掉')}"
    if pattern == 2:
        return f"请 {one('打开', '关上')} {device}"
    if pattern == 3:
        return f"空调 温度 {one('开到', '调到')} {number(31)} 度"
    if pattern == 4:
        return f"播放 {one('音乐', '新闻', '第 ' + number(20) + ' 首 歌')}"
    if pattern == 5:
        return f"{one('今天', '明天')} {one('北京', '上海', '广州')} 天气 怎么样"
    if pattern == 6:
        return f"定 {one('今天', '明天')} {number(13)} 点 {one('半 ', '')}的 闹钟"
    if pattern == 7:
        return (
            f"给 {one('妈妈', '爸爸')} 打 电话"
            if rng.random() < 0.6
            else one("现在 几 点", "大 声 一 点", "小 声 一 点")
        )
    return f"打 电话 {' '.join(DIGITS[digit] for digit in rng.integers(0, 9, rng.integers(3, 6)))}"


def pronunciation(word: str) -> tuple[str, ...]:
    """The phones of a word. Raises KeyError for a character that the language does not have."""
    return tuple(phone for character in word for phone in PINYIN[character].split())


def words() -> list[str]:
    """Every word that `draw_sentence` may use."""
    rng = np.random.default_rng(0)
    drawn = {word for _ in range(5000) for word in draw_sentence(rng).split()}
    return sorted(drawn)
