"""mmcv's operators as plain loops over numbers.

Written from mmcv's C++ and CUDA kernels, one comparison after the other. Slow on purpose.
"""

import math

import numpy as np
import torch


def iou(a, b, offset=0):
    """IoU of two boxes, each a row of an array: so every step is rounded to its precision."""
    offset, nothing = a.dtype.type(offset), a.dtype.type(0)
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, nothing)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, nothing)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    with np.errstate(invalid='ignore'):  # boxes without area
        return width * height / (areas[0] + areas[1] - width * height)


def nms(boxes, scores, iou_threshold, offset):
    rows, kept = boxes.numpy(), []
    for index in scores.sort(0, descending=True).indices.tolist():
        if not any(iou(rows[better], rows[index], offset) > iou_threshold for better in kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


def nms_match(dets, iou_threshold):
    rows = dets.numpy()
    left, groups = dets[:, 4].sort(0, descending=True).indices.tolist(), []
    while left:
        best, *others = left
        close = [i for i in others if iou(rows[best], rows[i]) >= iou_threshold]
        groups.append([best, *close])
        left = [i for i in others if i not in close]
    return groups


def softnms(boxes, scores, dets, iou_threshold, sigma, min_score, method, offset):
    rows = boxes.numpy()
    items = [[rows[index], scores[index], index] for index in range(len(boxes))]
    rank = 0
    while rank < len(items):
        best = max(range(rank, len(items)), key=lambda place: (items[place][1], -place))
        items[rank], items[best] = items[best], items[rank]
        place = rank + 1
        while place < len(items):
            overlap = iou(items[rank][0], items[place][0], offset)
            if method == 2:
                items[place][1] = items[place][1] * math.exp(-(overlap * overlap) / sigma)
            elif overlap >= iou_threshold:
                items[place][1] = items[place][1] * (0 if method == 0 else 1 - overlap)
            if items[place][1] < min_score:
                items[place] = items[-1]
                items.pop()
            else:
                place += 1
        rank += 1
    for rank, (box, score, _) in enumerate(items):
        dets[rank] = torch.tensor([*box, score])
    return torch.tensor([index for *_, index in items], dtype=torch.long)


def read_zeros(plane, y, x):
    """A plane between its pixels, with zeros outside."""
    height, width = plane.shape
    value = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                value = value + plane[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return value


def read_edge(plane, y, x):
    """A plane between its pixels, with the edge repeated for one pixel and zeros beyond."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(())
    return read_zeros(plane, min(max(y, 0), height - 1), min(max(x, 0), width - 1))


def roi_align(input, rois, size, scale, ratio, pool_mode, aligned):
    """``(R, C, *size)``, differentiable."""
    out = []
    for image, *corners in rois.tolist():
        left, top, right, bottom = (c * scale - 0.5 * aligned for c in corners)
        across, down = right - left, bottom - top
        if not aligned:
            across, down = max(across, 1), max(down, 1)
        steps = (down / size[0], across / size[1])
        counts = [ratio or math.ceil(step) for step in steps]
        for plane in input[int(image)]:
            for row in range(size[0]):
                for column in range(size[1]):
                    read = [
                        read_edge(
                            plane,
                            top + (row + (i + 0.5) / counts[0]) * steps[0],
                            left + (column + (j + 0.5) / counts[1]) * steps[1],
                        )
                        for i in range(counts[0])
                        for j in range(counts[1])
                    ]
                    nothing = plane.new_tensor(-10000.0 if pool_mode == 0 else 0.0)
                    values = torch.stack(read) if read else nothing[None]
                    out.append(values.max() if pool_mode == 0 else values.mean())
    return (
        torch.stack(out).view(len(rois), input.shape[1], *size)
        if out
        else input.new_zeros(0, input.shape[1], *size)
    )


def roi_pool(input, rois, size, scale):
    out = input.new_zeros(len(rois), input.shape[1], *size)
    height, width = input.shape[2:]
    for roi, (image, *corners) in enumerate(rois.tolist()):
        left, top = (c * scale for c in corners[:2])
        right, bottom = ((c + 1) * scale for c in corners[2:])
        for row in range(size[0]):
            for column in range(size[1]):
                steps = (bottom - top) / size[0], (right - left) / size[1]
                y1, y2 = math.floor(row * steps[0] + top), math.ceil((row + 1) * steps[0] + top)
                x1 = math.floor(column * steps[1] + left)
                x2 = math.ceil((column + 1) * steps[1] + left)
                y1, y2 = (min(max(y, 0), height) for y in (y1, y2))
                x1, x2 = (min(max(x, 0), width) for x in (x1, x2))
                if right > left and bottom > top and y1 < y2 and x1 < x2:
                    out[roi, :, row, column] = input[int(image), :, y1:y2, x1:x2].amax((1, 2))
    return out


def deform_conv(input, offset, mask, weight, stride, padding, dilation, groups, offset_groups):
    """``(B, C', H', W')``; offsets and masks are numbers here, so no gradient reaches them."""
    batch, channels, _, _ = input.shape
    out_channels, in_group, kernel_h, kernel_w = weight.shape
    out = input.new_zeros(batch, out_channels, *offset.shape[2:])
    points = kernel_h * kernel_w
    for b, o, row, column in torch.cartesian_prod(*map(torch.arange, out.shape)).tolist():
        for c in range(in_group):
            channel = c + o // (out_channels // groups) * in_group
            group = channel // (channels // offset_groups)
            for k in range(points):
                at = 2 * (group * points + k)
                dy, dx = offset[b, at : at + 2, row, column].tolist()
                y = row * stride[0] - padding[0] + k // kernel_w * dilation[0] + dy
                x = column * stride[1] - padding[1] + k % kernel_w * dilation[1] + dx
                read = read_zeros(input[b, channel], y, x) * weight[o, c].flatten()[k]
                if mask is not None:
                    read = read * mask[b, group * points + k, row, column]
                out[b, o, row, column] = out[b, o, row, column] + read
    return out


def deform_attention(value, shapes, starts, locations, weights):
    batch, _, heads, width = value.shape
    out = value.new_zeros(batch, locations.shape[1], heads, width)
    for b, q, h, level, point in torch.cartesian_prod(
        *map(torch.arange, locations.shape[:-1])
    ).tolist():
        height, wide = shapes[level].tolist()
        start = int(starts[level])
        x, y = locations[b, q, h, level, point].tolist()
        for d in range(width):
            plane = value[b, start : start + height * wide, h, d].view(height, wide)
            read = read_zeros(plane, y * height - 0.5, x * wide - 0.5)
            out[b, q, h, d] = out[b, q, h, d] + read * weights[b, q, h, level, point]
    return out.flatten(2)
