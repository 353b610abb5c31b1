"""What Grbl 1.1's error and alarm numbers mean, and what each alarm leaves of the machine's position."""

from typing import NamedTuple


class AlarmMeaning(NamedTuple):
    """`keeps_position`: the steps are still counted right. `needs_reset`: the controller answers nothing until it is reset."""

    text: str
    keeps_position: bool
    needs_reset: bool


ERRORS = {
    1: "a word of the line does not begin with a letter",
    2: "a word of the line has no number, or one that cannot be read",
    3: "it does not know this $ command",
    4: "the value must not be negative",
    5: "homing is switched off ($22=0)",
    6: "a step pulse must be longer than 3 µs",
    7: "its EEPROM could not be read, and the settings there went back to their defaults",
    8: "this $ command works only while it is idle",
    9: "it is locked after an alarm, or it is jogging",
    10: "soft limits need homing to be switched on",
    11: "the line is longer than its line buffer, and was not carried out",
    12: "the setting would need steps faster than it can make",
    13: "the safety door is open",
    14: "the text is longer than what its EEPROM has room for",
    15: "the jog would leave the machine's travel",
    16: "the jog has no '=', or a word that a jog may not have",
    17: "laser mode needs a spindle output with PWM",
    20: "it does not know this G-code, or does not carry it out",
    21: "the line has two codes of one modal group",
    22: "no feed rate is set",
    23: "a code of the line needs a whole number",
    24: "two codes of the line both need axis words",
    25: "a word is repeated in the line",
    26: "a code of the line needs axis words and has none",
    27: "the line number is out of range",
    28: "a code of the line needs a P or L word and has none",
    29: "it has the work coordinates G54 to G59 only",
    30: "G53 goes with G0 and G1 only",
    31: "the line has axis words that nothing uses",
    32: "the arc has no axis word in its plane",
    33: "the move has no valid target",
    34: "the arc's radius cannot be right",
    35: "the arc has no offset in its plane",
    36: "the line has words that nothing uses",
    37: "a tool length offset goes on the configured axis only",
    38: "the tool's number is too large",
}

ALARMS = {
    1: AlarmMeaning("a limit switch was hit; it stopped at once, and has likely lost its position", False, True),
    2: AlarmMeaning("a move would leave the machine's travel (soft limit); its position is kept", True, True),
    3: AlarmMeaning("it was reset while it moved, and has likely lost its position", False, False),
    4: AlarmMeaning("the probe was not in the state that the probing cycle starts from", True, False),
    5: AlarmMeaning("the probe touched nothing", True, False),
    6: AlarmMeaning("homing failed: it was reset", False, False),
    7: AlarmMeaning("homing failed: the safety door was opened", False, False),
    8: AlarmMeaning("homing failed: a limit switch stayed closed after pulling off", False, False),
    9: AlarmMeaning("homing failed: no limit switch was found within the travel", False, False),
}
_UNKNOWN_ALARM = AlarmMeaning("an alarm that Grbl 1.1 does not have", False, True)


def error_text(code: int) -> str:
    """The meaning of `error:code`; 0 is an error that came without a number."""
    return ERRORS.get(code, "an error that Grbl 1.1 does not have")


def alarm_meaning(code: int) -> AlarmMeaning:
    """The meaning of `ALARM:code`; of an unknown one, the worst."""
    return ALARMS.get(code, _UNKNOWN_ALARM)
