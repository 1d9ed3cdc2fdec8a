"""Numbers of the board's GPIO lines.

The chip is the PL061 of QEMU's machine `virt`, /dev/gpiochip0 in the guest, 8 lines.
Line 3 is the machine's own power button.
"""

BUTTON = 0  # inside, connects to ground when pressed: idle 1
CONTACT = 1  # a reed contact to ground: 0 while the door is closed, 1 while it is open
RELAY = 2  # 1 = energised
EXIT = 4  # request to exit, connects to ground when pressed: idle 1
GREEN = 5
RED = 6
BUZZER = 7

NAMES = {BUTTON: "button", CONTACT: "contact", RELAY: "relay", EXIT: "exit", GREEN: "green",
         RED: "red", BUZZER: "buzzer"}

# Inputs of the board, driven from outside, with their levels at rest.
INPUTS = {BUTTON: 1, CONTACT: 0, EXIT: 1}
# Outputs of the board, driven by the program.
OUTPUTS = (RELAY, GREEN, RED, BUZZER)
