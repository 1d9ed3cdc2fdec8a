"""The board's GPIO lines as they are soldered: the one place that numbers them.

The chip is the PL061 of QEMU's machine `virt`, /dev/gpiochip0 in the guest, 8 lines.
Line 3 is the machine's own power button.
"""

BUTTON = 0  # inside, to ground when pressed: idle 1
CONTACT = 1  # a reed contact to ground: 0 while the door is closed, 1 while it is open
RELAY = 2  # 1 = energised
EXIT = 4  # request to exit, to ground when pressed: idle 1
GREEN = 5
RED = 6
BUZZER = 7

NAMES = {BUTTON: "button", CONTACT: "contact", RELAY: "relay", EXIT: "exit", GREEN: "green",
         RED: "red", BUZZER: "buzzer"}

# What is outside drives these; the levels of a board at rest.
INPUTS = {BUTTON: 1, CONTACT: 0, EXIT: 1}
# What the program drives.
OUTPUTS = (RELAY, GREEN, RED, BUZZER)
