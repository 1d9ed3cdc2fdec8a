// Small tools to try the board's devices without the program that is tested on it.
//
//     probe frames DEVICE COUNT            capture by mmap; size and a sum of each frame
//     probe set CHIP LINE VALUE MS         drive a line so long
//     probe edges CHIP LINE COUNT MS       edges of a line until there are so many
//     probe serial PORT HEX COUNT MS       send bytes at 9600 8N1, read so many
//
// One line a finding on standard output; exit code 1 where something is missing.
#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int failed(const char *what) {
    printf("probe: %s: %s\n", what, strerror(errno));
    return 1;
}

static int ready(int file, int ms) {
    struct pollfd poll_for = {.fd = file, .events = POLLIN};
    return poll(&poll_for, 1, ms) == 1 && poll_for.revents & POLLIN;
}

static int frames(const char *path, int count) {
    enum { BUFFERS = 4 };
    void *memory[BUFFERS];
    int device = open(path, O_RDWR);
    if (device < 0) return failed(path);
    struct v4l2_capability what = {0};
    if (ioctl(device, VIDIOC_QUERYCAP, &what) != 0) return failed("QUERYCAP");
    if (!(what.device_caps & V4L2_CAP_VIDEO_CAPTURE)) {
        printf("probe: %s captures nothing now\n", path);
        return 1;
    }
    struct v4l2_format format = {.type = V4L2_BUF_TYPE_VIDEO_CAPTURE};
    if (ioctl(device, VIDIOC_G_FMT, &format) != 0) return failed("G_FMT");
    printf("%s: %.4s %ux%u\n", what.card, (char *)&format.fmt.pix.pixelformat,
           format.fmt.pix.width, format.fmt.pix.height);
    struct v4l2_requestbuffers request = {
        .count = BUFFERS, .type = V4L2_BUF_TYPE_VIDEO_CAPTURE, .memory = V4L2_MEMORY_MMAP};
    if (ioctl(device, VIDIOC_REQBUFS, &request) != 0) return failed("REQBUFS");
    for (unsigned i = 0; i < request.count && i < BUFFERS; i++) {
        struct v4l2_buffer buffer = {.index = i, .type = request.type, .memory = request.memory};
        if (ioctl(device, VIDIOC_QUERYBUF, &buffer) != 0) return failed("QUERYBUF");
        memory[i] = mmap(NULL, buffer.length, PROT_READ, MAP_SHARED, device, buffer.m.offset);
        if (memory[i] == MAP_FAILED) return failed("mmap");
        if (ioctl(device, VIDIOC_QBUF, &buffer) != 0) return failed("QBUF");
    }
    int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    if (ioctl(device, VIDIOC_STREAMON, &type) != 0) return failed("STREAMON");
    for (int i = 0; i < count; i++) {
        struct v4l2_buffer buffer = {.type = request.type, .memory = request.memory};
        if (!ready(device, 5000)) {
            printf("probe: no frame in 5 s\n");
            return 1;
        }
        if (ioctl(device, VIDIOC_DQBUF, &buffer) != 0) return failed("DQBUF");
        uint32_t sum = 2166136261u; // FNV-1a
        const uint8_t *bytes = memory[buffer.index];
        for (uint32_t at = 0; at < buffer.bytesused; at++) sum = (sum ^ bytes[at]) * 16777619u;
        printf("frame %u %08x\n", buffer.bytesused, sum);
        if (ioctl(device, VIDIOC_QBUF, &buffer) != 0) return failed("QBUF");
    }
    return 0;
}

// A line of a chip as the kernel's character device hands it out, version 2.
static int line(const char *chip, int offset, uint64_t flags, int value) {
    int device = open(chip, O_RDWR);
    if (device < 0) return -1;
    struct gpio_v2_line_request request = {.num_lines = 1, .consumer = "probe"};
    request.offsets[0] = offset;
    request.config.flags = flags;
    // What is not used must be zero.
    if (flags & GPIO_V2_LINE_FLAG_OUTPUT) {
        request.config.num_attrs = 1;
        request.config.attrs[0].mask = 1;
        request.config.attrs[0].attr.id = GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES;
        request.config.attrs[0].attr.values = value;
    }
    int got = ioctl(device, GPIO_V2_GET_LINE_IOCTL, &request);
    close(device);
    return got == 0 ? request.fd : -1;
}

static int set(const char *chip, int offset, int value, int ms) {
    int file = line(chip, offset, GPIO_V2_LINE_FLAG_OUTPUT, value);
    if (file < 0) return failed(chip);
    usleep(ms * 1000);
    return 0;
}

static int edges(const char *chip, int offset, int count, int ms) {
    int file = line(chip, offset,
                    GPIO_V2_LINE_FLAG_INPUT | GPIO_V2_LINE_FLAG_EDGE_RISING |
                        GPIO_V2_LINE_FLAG_EDGE_FALLING,
                    0);
    if (file < 0) return failed(chip);
    printf("waiting\n");
    for (int i = 0; i < count; i++) {
        struct gpio_v2_line_event event;
        if (!ready(file, ms)) {
            printf("probe: %d edges of %d\n", i, count);
            return 1;
        }
        if (read(file, &event, sizeof event) != sizeof event) return failed("edge");
        printf("%s %llu ms\n", event.id == GPIO_V2_LINE_EVENT_RISING_EDGE ? "rising" : "falling",
               (unsigned long long)event.timestamp_ns / 1000000);
    }
    return 0;
}

static int serial(const char *path, const char *hex, int count, int ms) {
    int port = open(path, O_RDWR | O_NOCTTY);
    if (port < 0) return failed(path);
    struct termios mode;
    if (tcgetattr(port, &mode) != 0) return failed(path);
    cfmakeraw(&mode);
    cfsetspeed(&mode, B9600);
    mode.c_cflag |= CLOCAL | CREAD;
    if (tcsetattr(port, TCSANOW, &mode) != 0) return failed(path);
    for (unsigned byte; sscanf(hex, "%2x", &byte) == 1; hex += 2) {
        uint8_t one = byte;
        if (write(port, &one, 1) != 1) return failed("write");
    }
    for (int i = 0; i < count; i++) {
        uint8_t one;
        if (!ready(port, ms) || read(port, &one, 1) != 1) {
            printf("\nprobe: %d bytes of %d\n", i, count);
            return 1;
        }
        printf("%02x", one);
    }
    printf("\n");
    return 0;
}

int main(int count, char **a) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count == 4 && !strcmp(a[1], "frames")) return frames(a[2], atoi(a[3]));
    if (count == 6 && !strcmp(a[1], "set")) return set(a[2], atoi(a[3]), atoi(a[4]), atoi(a[5]));
    if (count == 6 && !strcmp(a[1], "edges")) return edges(a[2], atoi(a[3]), atoi(a[4]), atoi(a[5]));
    if (count == 6 && !strcmp(a[1], "serial")) return serial(a[2], a[3], atoi(a[4]), atoi(a[5]));
    fprintf(stderr, "probe frames|set|edges|serial ...\n");
    return 2;
}
